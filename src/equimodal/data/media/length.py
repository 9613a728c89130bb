"""How long a stream is by its file's own account, where that account is exact."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

from equimodal.data.media.file import growth

# What these state is counted by whoever wrote the file, for each stream.
OF_STREAMS = {"mov,mp4,m4a,3gp,3g2,mj2", "avi", "wav", "w64", "aiff", "caf", "flac", "mp3"}
# These state how long their longest stream is, and no more.
OF_FILES = {"matroska,webm", "flv", "asf"}
# What all others "state" is guessed: from the bit rate at the beginning, or from the last time
# stamp that is there.
SEGMENT = b"\x18\x53\x80\x67"
HEAD = 8192  # bytes in which a file says how large it is
AGREE = Fraction(1, 10)  # seconds by which two statements of one length may differ
COUNTED = (b"Xing", b"Info", b"VBRI")  # in the first frame of an MP3 file that says its length


def of_stream(container: Any, stream: Any, path: Path) -> Fraction | None:
    """Return the seconds that a stream lasts, None if the file does not say it exactly."""
    name = container.format.name
    if name not in OF_STREAMS or (name == "mp3" and not _counted_mp3(path)):
        return None
    if name == "flac" and not _counted_flac(path):
        return None
    unit = Fraction(stream.time_base)
    ticks = stream.duration
    if name == "avi" and stream.frames:
        ticks = ticks or stream.frames
    if not ticks:
        return None
    stretched = growth(path) if name in ("avi", "wav") else 1.0
    return Fraction(ticks * unit * Fraction(stretched))


def of_file(container: Any) -> Fraction | None:
    """Return when the longest stream ends, in seconds as time stamps count them; None if unsaid."""
    if container.format.name not in OF_FILES or not container.duration:
        return None
    return Fraction(container.duration, 1_000_000)


def intact(container: Any, path: Path) -> bool:
    """Return whether a file is at least as large as it says that it is; False if it says nothing.

    What FLV and Matroska state of their length is written by another rule in each program, and
    may be seconds beyond the last packet of a file from which nothing is missing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
    if container.format.name == "flv":
        at = head.find(b"\x00\x08filesize\x00")
        if at < 0 or at + 19 > len(head):
            return False
        (stated,) = struct.unpack_from(">d", head, at + 11)
        return bool(0 < stated <= size)
    if container.format.name == "matroska,webm":
        end = _segment_end(head)
        return end is not None and end <= size
    return False


def tagged(stream: Any, container: Any) -> Fraction | None:
    """Return when a stream of Matroska ends by its tag DURATION, which most programs write.

    None where there is no such tag, or where the tags are of another file: the latest of them is
    the length of the whole.
    """
    ends = {each.index: _seconds(each.metadata.get("DURATION", "")) for each in container.streams}
    latest = max((end for end in ends.values() if end is not None), default=None)
    whole = of_file(container)
    if latest is None or whole is None or abs(latest - whole) > AGREE:
        return None
    return ends[stream.index]


def _seconds(text: str) -> Fraction | None:
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])


def _segment_end(head: bytes) -> int | None:
    """Return where the segment of a Matroska file ends, None where it is unknown, as in streams."""
    at = head.find(SEGMENT)
    if at < 0 or at + 12 > len(head):
        return None
    first = head[at + 4]
    width = 9 - first.bit_length()
    if not 1 <= width <= 8:
        return None
    value = int.from_bytes(head[at + 4 : at + 4 + width], "big") & (1 << 7 * width) - 1
    if value == (1 << 7 * width) - 1:
        return None
    return at + 4 + width + value


def _counted_mp3(path: Path) -> bool:
    """Return whether an MP3 file says how many frames it has; else FFmpeg divides by a bit rate."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            size = 0
            for byte in head[6:]:
                size = size << 7 | byte & 127
            file.seek(10 + size)
        else:
            file.seek(0)
        frame = file.read(4096)
    return any(name in frame[:300] for name in COUNTED)


def _counted_flac(path: Path) -> bool:
    """Return whether a FLAC file says how many samples it has: one that was streamed says 0."""
    with path.open("rb") as file:
        head = file.read(26)
    if head[:4] != b"fLaC" or len(head) < 26:
        return False
    (packed,) = struct.unpack(">Q", head[18:26])
    return bool(packed & 0xFFFFFFFFF)
