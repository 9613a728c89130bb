"""Images of IDX files."""

from __future__ import annotations

import gzip
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equimodal.data import media

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 7, 9), np.uint8)


def idx(images: np.ndarray = IMAGES) -> bytes:
    return struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()


def opened(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz", "gzip without name"])
def test_each_image_comes_out_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(idx()) if "gz" in name else idx())
    for index in (3, 0, 4, 1, 2):
        np.testing.assert_array_equal(opened(media.picture(path, index)), IMAGES[index])
    assert media.picture(path, 3) == media.picture(path, 3)


def test_no_image_with_this_index(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx())
    for index in (5, -1):
        with pytest.raises(media.Undecodable, match=f"^no image with this index: {index} of 5$"):
            media.picture(path, index)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty file"),
        (b"not an IDX file at all", "unreadable: not an IDX file of images"),
        (struct.pack(">II", 0x801, 3) + bytes(20), "unreadable: not an IDX file of images"),
        (idx()[:-1], "truncated: 4 of 5 images"),
        (gzip.compress(idx())[:-30], "truncated: the gzip file ends early"),
        (gzip.compress(idx())[:10] + b"\xff" * 50, "unreadable: "),
    ],
    # Not the bytes themselves: those of gzip hold the time, and two workers must agree on names.
    ids=["missing", "empty", "no idx", "labels", "one short", "gzip cut", "gzip broken"],
)
def test_what_cannot_be_read(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "images"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(media.Undecodable) as caught:
        media.picture(path, 0)
    assert caught.value.reason.startswith(reason)


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx())
    media.picture(path, 0)
    path.write_bytes(idx(255 - IMAGES))
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(opened(media.picture(path, 0)), 255 - IMAGES[0])


def test_a_compressed_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx()))
    first = media.picture(path, 0)
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))  # gone, but for its size and time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert media.picture(path, 0) == first
