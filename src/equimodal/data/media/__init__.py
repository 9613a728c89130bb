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

- The span of a clip without an end is the longer one of what the file states and what it holds. FLV
  and Matroska state only the length of the longest stream, and MPEG program and transport streams
  nothing: one of these that is cut short passes for a short one, unless the clip's end is given.
- Sound that ends early, but not so early as to be refused, is returned as long as it is; padding of
  a codec at its end, up to 64 ms, is kept. Pictures are as many as asked for: the last stands for
  the moments after it.
- Damaged packets are passed over. The sound that is lost is missing, and silent if longer than
  50 ms; of pictures, what no picture covers is missing, where each covers what it says it lasts, or
  up to a second until the next one. What a decoder conceals counts as decoded.
- Time stamps: sound and pictures never go back. A picture without one, or with one that goes back,
  is a mean step after the one before.
- Times count from where the first of the file's streams begins, so that sound and pictures stay
  together; before the first picture, it is the first.
- Several streams: the first one. Several channels: their mean.
- Pixels that are not square: the longer axis is shortened, pictures are as a viewer sees them.
  Rotation and mirroring that the file asks for are carried out. Interlaced pictures stay so.
- A clip that starts at 2 s or later is sought in AVI, FLAC, FLV, Matroska, MP4, MPEG-TS and WAV:
  pictures and samples are the same as without (AAC and MP2 within 2 of 32768, as their decoders
  carry state). Other files are decoded from the beginning.
- The same file gives the same bytes on each run: decoders run in one thread.
"""

from equimodal.data.media.frames import frames
from equimodal.data.media.picture import picture
from equimodal.data.media.refusal import Undecodable
from equimodal.data.media.sound import sound
from equimodal.data.media.wav import pcm, wav

__all__ = ["Undecodable", "frames", "pcm", "picture", "sound", "wav"]
