"""Sound and pictures out of media files, with PyAV; nothing is kept between calls.

What cannot be had raises `Undecodable`, whose ``reason`` is one of these:

================================================  ===============================================
``no such file``                                  nor a folder, nor a pipe
``empty file``                                    0 bytes
``unreadable: Invalid data found ...``            no media file, damaged beyond use, or a codec that
                                                  FFmpeg does not know
``no sound``, ``no video``                        no such stream, or nothing in it; covers of albums
                                                  are no video
``truncated: 1.20 s of 3.00 s``                   more than a tenth of the wanted span is missing
                                                  (but 0.1 s always may be, and never more than
                                                  60 s), or all of it
``truncated: 100 of 8500 images``                 an IDX file is shorter than its header says
``starts after its end: start 5.00 s, end ...``   the clip's end or the file's
``starts before 0: start -1.00 s``
``no image with this index: 7 of 5``
================================================  ===============================================

What has another outcome:

- A length is what was decoded, and is compared with what a file states only where that is exact: a
  count of the stream in AVI, FLAC, MP3 with a header that counts, MP4, MOV and WAV; tags and length
  of Matroska, and the length of FLV and ASF, if the file is smaller than it says. What FFmpeg
  guesses, from bit rates or the last time stamp, is not looked at. MPEG program and transport
  streams and raw AAC, AC-3, MP2 and MP3 state nothing: one that is cut short passes for a short
  one, unless the clip's end is given.
- Streams of one file may have different lengths; each has its own.
- Sound that ends early, but not so early as to be refused, is returned as long as it is; padding of
  a codec at its end, up to 64 ms, is kept. Pictures are as many as asked for: the last stands for
  the moments after it.
- Pauses: the last picture stands, however long, and sound is silent, up to a minute in all. Beyond
  a minute a time stamp is believed if it lies within what the file states.
- Damaged packets are passed over. What they held is missing, and so is what a demuxer skipped to
  find its way again, beyond a second. The sound that is lost is silent if longer than 50 ms. What a
  decoder conceals counts as decoded.
- Time stamps: sound and pictures never go back. A picture without one, or with one that goes back,
  is a mean step after the one before.
- Times count from where the first of the file's streams begins, without what a codec puts before
  the first sample, so that a clip is the same whatever container holds it (`priming`); before the
  first picture, it is the first.
- Several streams: the default one, as FFmpeg chooses it, with a remark. Several channels: their
  mean, with a remark where they cancel.
- Pixels that are not square: the longer axis is shortened, pictures are as a viewer sees them.
  Rotation and mirroring that the file or EXIF asks for are carried out. Interlaced pictures stay
  so.
- A clip that starts at 2 s or later is sought in AVI, FLAC, FLV, Matroska, MP4, MPEG-TS and WAV:
  pictures and samples are the same as without (AAC and MP2 within 2 of 32768, as their decoders
  carry state). Other files are decoded from the beginning.
- The same file gives the same bytes on each run: decoders run in one thread.

What is odd about a clip that can be had is added to ``remarks``: `equimodal.data.media.remarks`.
"""

from equimodal.data.media.frames import frames
from equimodal.data.media.picture import picture
from equimodal.data.media.refusal import Undecodable
from equimodal.data.media.sound import sound
from equimodal.data.media.stills import flow, stills
from equimodal.data.media.text import words
from equimodal.data.media.wav import pcm, wav

__all__ = [
    "Undecodable",
    "flow",
    "frames",
    "pcm",
    "picture",
    "sound",
    "stills",
    "wav",
    "words",
]
