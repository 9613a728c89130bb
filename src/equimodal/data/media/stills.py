"""Pictures that somebody has taken out of a video already: a folder of numbered files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from equimodal.data.media.refusal import Undecodable
from equimodal.system.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def stills(folder: Path, rate: float, fps: float, side: int, quality: int) -> list[bytes]:
    """Return pictures from the middles of equal parts of a folder, as JPEG.

    A JPEG that is small enough is kept as it is; others are made smaller, or coded anew.

    Args:
        folder: its files are pictures, one after the other by their names.
        rate: how many of them are a second.
        fps: pictures to keep for each second; one at least.
        side: shorter side of a picture, in pixels; smaller ones are not enlarged.
        quality: of JPEG, 1 to 95.

    Raises:
        Undecodable: there is no picture, or one that is wanted cannot be decoded.
    """
    files = _files(folder)
    return [_kept(files[place], side, quality, "RGB") for place in _middles(len(files), rate, fps)]


def flow(across: Path, down: Path, rate: float, fps: float, side: int, quality: int) -> list[bytes]:
    """Return optical flow from the middles of equal parts: across, down, across, down and so on.

    Pictures are grey, and no pixels' motion is rescaled when they are made smaller.

    Args:
        across: folder of what moves across.
        down: folder of what moves down: as many pictures.
        rate: see `stills`.
        fps: moments to keep for each second; one at least.
        side: see `stills`.
        quality: see `stills`.

    Raises:
        Undecodable: as `stills`; or the two folders differ.
    """
    both = _files(across), _files(down)
    if len(both[0]) != len(both[1]):
        raise Undecodable(f"flow: {len(both[0])} pictures across, {len(both[1])} down")
    return [
        _kept(files[place], side, quality, "L")
        for place in _middles(len(both[0]), rate, fps)
        for files in both
    ]


def _files(folder: Path) -> list[Path]:
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        raise Undecodable("no such file") from None
    if not found:
        raise Undecodable("no video: no picture in the folder")
    # frame2 before frame10, where numbers are not padded.
    return sorted(found, key=lambda path: (len(path.stem), path.stem))


def _middles(files: int, rate: float, fps: float) -> list[int]:
    parts = max(1, round(files / rate * fps))
    return [int((part + 0.5) * files / parts) for part in range(parts)]


def _kept(path: Path, side: int, quality: int, mode: str) -> bytes:
    require("data", "PIL")
    from PIL import Image, UnidentifiedImageError

    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.format == "JPEG" and image.mode == mode and min(image.size) <= side:
                return content
            return _coded(image.convert(mode), side, quality)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        said = str(error).replace(str(path), path.name)
        raise Undecodable(f"unreadable: {path.name}: {said}") from error


def _coded(image: Image, side: int, quality: int) -> bytes:
    from PIL.Image import Resampling

    scale = min(1.0, side / min(image.size))
    if scale < 1:
        size = tuple(max(1, round(length * scale)) for length in image.size)
        image = image.resize((size[0], size[1]), Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
