"""What a codec puts before the first sample, in containers that cannot say so.

An encoder of frames that overlap begins with samples that are not of the sound: MP4, Matroska,
Ogg and the tag of LAME in MP3 files say how many, and FFmpeg leaves them out. Elsewhere they are
decoded as if they were sound, and all that follows is late by them. How many there are is a
property of the codec, and of the encoder where that has a choice: these are FFmpeg's, which wrote
most files that people train on. Programs that write time stamps moved the other streams of the file
along; what they say of sound and pictures is kept, only the beginning of the file is set by it.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

SAMPLES = {
    "aac": 1024,
    "mp3": 1105,  # 576 of the encoder, 529 of the decoder
    "mp3float": 1105,
    "mp2": 481,
    "mp2float": 481,
    "ac3": 256,
    "eac3": 256,
}
# Of these FLV and the MPEG streams have time stamps: other streams of the file were moved along.
UNSAID = {"flv", "mpegts", "mpeg", "avi", "aac", "ac3", "eac3", "mp3"}


def priming(container: Any, stream: Any) -> Fraction:
    """Return the seconds of a stream that are decoded but are not of the sound."""
    context = stream.codec_context
    if stream.type != "audio" or context is None or container.format.name not in UNSAID:
        return Fraction(0)
    if container.format.name == "mp3" and stream.start_time:
        return Fraction(0)  # the tag of LAME says it
    return Fraction(SAMPLES.get(context.name, 0), context.sample_rate or 44_100)
