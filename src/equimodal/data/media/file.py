"""What can be said of a file before anything is decoded."""

from __future__ import annotations

import struct
from pathlib import Path

from equimodal.data.media.refusal import Undecodable


def present(path: Path) -> Path:
    """Return the path of a file that is there and not empty.

    Raises:
        Undecodable: it is not.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:  # for instance a name that is too long
        size = None
    if size is None:
        raise Undecodable("no such file")
    if not size:
        raise Undecodable("empty file")
    return path


def growth(path: Path) -> float:
    """Return how many times longer than it is a RIFF file (WAV, AVI) should be, at least 1.

    FFmpeg measures such a file and does not say how long it was meant to be.
    """
    with path.open("rb") as file:
        name, size = struct.unpack("<4sI", file.read(8))
    if name != b"RIFF" or size >= 2**31 - 1:  # written before the size was known, or too large
        return 1.0
    claimed: int = size + 8
    return max(1.0, claimed / path.stat().st_size)
