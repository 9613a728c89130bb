"""Headers and labels of IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

from equimodal.errors import SetupError

IMAGES, LABELS = 0x803, 0x801  # unsigned bytes of three axes and of one


def image_count(path: Path) -> int:
    """Return how many images a file holds.

    Raises:
        SetupError: it is no IDX file of images.
    """
    magic, count, height, width = struct.unpack(">4I", _read(path, 16))
    if magic != IMAGES or not height or not width:
        raise SetupError(
            f"{path}: expected an IDX file of images, found the first bytes {magic:#x}"
        )
    return int(count)


def labels(path: Path) -> bytes:
    """Return the label of every image.

    Raises:
        SetupError: it is no IDX file of labels, or is cut off.
    """
    magic, count = struct.unpack(">2I", _read(path, 8))
    if magic != LABELS:
        raise SetupError(
            f"{path}: expected an IDX file of labels, found the first bytes {magic:#x}"
        )
    return _read(path, 8 + count)[8:]


def _read(path: Path, size: int) -> bytes:
    """Return the first bytes of a file."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data: bytes = file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error
    if len(data) < size:
        raise SetupError(f"{path}: expected {size} bytes or more, found {len(data)}: cut off")
    return data
