"""A clip as a row: its sound and pictures decoded, its label a number."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from equimodal.data.layouts.clip import Clip, Listing, Picture, Piece, Sound
from equimodal.data.preparing.plan import kinds
from equimodal.data.preparing.recipe import Recipe

Row = dict[str, Any]


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
        features[name] = {"sound": sound, "frames": hf.List(pictures), "picture": pictures}[kind]
    for name, value in listing.clips[0].columns.items():
        features[name] = hf.Value("string" if isinstance(value, str) else "float64")
    return hf.Features(features).arrow_schema


def decoded(clip: Clip, root: Path, recipe: Recipe, label: int) -> tuple[Row, dict[str, float]]:
    """Return a clip as a row, and the seconds of its sounds by modality.

    Raises:
        UnfitError: one of its pieces cannot be decoded.
        OSError: a file cannot be read.
    """
    from equimodal.data import media

    row: Row = {"id": clip.id, "label": label, "group": clip.group}
    seconds = {}
    for name, piece in clip.pieces.items():
        try:
            row[name], length = _stored(piece, root / piece.path, recipe)
        except media.Undecodable as error:
            raise UnfitError(piece.path, error.reason) from error
        if isinstance(piece, Sound):
            seconds[name] = length
    for name, value in clip.columns.items():
        row[name] = value if isinstance(value, str) else float(value)
    return row, seconds


def _stored(piece: Piece, path: Path, recipe: Recipe) -> tuple[Any, float]:
    """Return what is stored of a piece, and how long it sounds."""
    from equimodal.data import media

    if isinstance(piece, Sound):
        pcm = media.sound(path, piece.start, piece.end, recipe.rate)
        return _file(media.wav(pcm, recipe.rate)), len(pcm) / recipe.rate
    if isinstance(piece, Picture):
        return _file(media.picture(path, piece.index)), 0.0
    frames = media.frames(path, piece.start, piece.end, recipe.fps, recipe.side, recipe.quality)
    return [_file(frame) for frame in frames], 0.0


def _file(content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": None}
