"""A clip as a row: its sound and pictures decoded, its label a number."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from equimodal.data.layouts.clip import (
    Clip,
    Flow,
    Listing,
    Picture,
    Piece,
    Sound,
    Stills,
    Text,
)
from equimodal.data.preparing.plan import kinds
from equimodal.data.preparing.recipe import Recipe

Row = dict[str, Any]

# What the machine lacks, and no other clip would have either: the run ends, and can go on later.
OURS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN}


class UnfitError(Exception):
    """A clip cannot be decoded.

    Attributes:
        path: of the file that cannot.
        reason: see `Failure`.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """A clip as a row.

    Attributes:
        row: of the table.
        seconds: of its sounds, by modality.
        remarks: the path of a file, and what is odd about it.
    """

    row: Row
    seconds: dict[str, float] = field(default_factory=dict)
    remarks: list[tuple[str, str]] = field(default_factory=list)


def schema(listing: Listing) -> Any:
    """Return the Arrow schema of rows, with the features by which `datasets` knows it.

    Sound and pictures are stored as files that anything can read, each a struct of bytes and path.
    """
    hf: Any = import_module("datasets")  # untyped
    pictures = hf.Image(decode=False)
    features = {
        "id": hf.Value("string"),
        "label": hf.ClassLabel(names=list(listing.classes)),
        "group": hf.Value("string"),
    }
    for name, kind in kinds(listing).items():
        sound = hf.Audio(decode=False)
        features[name] = {
            "sound": sound,
            "frames": hf.List(pictures),
            "picture": pictures,
            "flow": hf.List(pictures),
            "text": hf.Value("string"),
        }[kind]
    for name, value in listing.clips[0].columns.items():
        features[name] = hf.Value("string" if isinstance(value, str) else "float64")
    return hf.Features(features).arrow_schema


def decoded(clip: Clip, root: Path, recipe: Recipe, label: int) -> Decoded:
    """Return a clip as a row.

    Raises:
        UnfitError: one of its pieces cannot be decoded, or none where some may be missing. That is
            whatever a decoder, PyAV, Pillow or this package raises: one clip never ends the
            preparation of all others.
        OSError: the machine is out of something that has nothing to do with the clip.
        ImportError: a library is missing.
    """
    made = Decoded({"id": clip.id, "label": label, "group": clip.group})
    unfit: list[UnfitError] = []
    for name, piece in clip.pieces.items():
        remarks: list[str] = []
        try:
            made.row[name], length = _piece(piece, root, recipe, remarks)
        except UnfitError as error:
            unfit.append(error)
            made.row[name], length = None, 0.0
            remarks = [f"without {name}: {error.reason}"]
            if not recipe.keep_partial or len(unfit) == len(clip.pieces):
                raise unfit[0] from unfit[0].__cause__
        made.remarks.extend((piece.path, remark) for remark in dict.fromkeys(remarks))
        if isinstance(piece, Sound):
            made.seconds[name] = length
    for name, value in clip.columns.items():
        made.row[name] = value if isinstance(value, str) else float(value)
    return made


def _piece(piece: Piece, root: Path, recipe: Recipe, remarks: list[str]) -> tuple[Any, float]:
    """Return what is stored of a piece, and how long it sounds."""
    from equimodal.data import media

    try:
        return _stored(piece, root / piece.path, recipe, remarks)
    except media.Undecodable as error:
        raise UnfitError(piece.path, error.reason) from error
    except ImportError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OURS:
            raise
        raise UnfitError(piece.path, _said(error)) from error


def _said(error: Exception) -> str:
    """Return an error in one line, with the place that it comes from."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f" ({Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno})" if where else ""
    text = " ".join(str(error).split())[:200]
    return f"unreadable: {type(error).__name__}: {text}{place}"


def _stored(piece: Piece, path: Path, recipe: Recipe, remarks: list[str]) -> tuple[Any, float]:
    """Return what is stored of a piece, and how long it sounds."""
    from equimodal.data import media

    if isinstance(piece, Sound):
        pcm = media.sound(path, piece.start, piece.end, recipe.rate, remarks)
        return _file(media.wav(pcm, recipe.rate)), len(pcm) / recipe.rate
    if isinstance(piece, Picture):
        return _file(media.picture(path, piece.index)), 0.0
    if isinstance(piece, Text):
        return media.words(piece.text), 0.0
    fps, side, quality = recipe.fps, recipe.side, recipe.quality
    if isinstance(piece, Stills):
        return [_file(each) for each in media.stills(path, piece.rate, fps, side, quality)], 0.0
    if isinstance(piece, Flow):
        below = path.parents[len(Path(piece.path).parts) - 1] / piece.down
        pairs = media.flow(path, below, piece.rate, fps, side, quality)
        return [_file(each) for each in pairs], 0.0
    frames = media.frames(path, piece.start, piece.end, fps, side, quality, remarks)
    return [_file(frame) for frame in frames], 0.0


def _file(content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": None}
