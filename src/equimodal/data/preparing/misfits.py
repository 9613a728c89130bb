"""What is refused of a listing before anything is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath

from equimodal.data.layouts.clip import Clip, Failure, Listing, Text, paths_of
from equimodal.data.preparing.plan import SPLITS
from equimodal.errors import SetupError, unknown

RESERVED = ("id", "label", "group")  # columns that every prepared folder has


def refuse_misfits(listing: Listing) -> None:
    """Refuse a listing that cannot become one table for each split.

    Raises:
        SetupError: there are no clips; an id is there twice; a label or split is unknown; clips
            differ in modalities or columns; a path leads out of the source folder; or a text is no
            valid Unicode.
    """
    if not listing.clips:
        raise SetupError(f"{listing.root}: expected clips of {listing.name}, found none")
    twice = [name for name, count in Counter(c.id for c in listing.clips).items() if count > 1]
    if twice:
        raise SetupError(f"expected ids that differ, found {len(twice)} twice, such as {twice[0]}")
    failed = {failure.id for failure in listing.failures}
    if both := [clip.id for clip in listing.clips if clip.id in failed]:
        raise SetupError(f"expected clips or failures, found {both[0]} among both")
    first = listing.clips[0]
    shape, columns = _pieces(first), _columns(first.columns)
    if not shape:
        raise SetupError(f"{first.id}: expected modalities, found none")
    classes = set(listing.classes)
    for clip in listing.clips:
        _refuse_texts(clip)
        if clip.label not in classes:
            raise SetupError(f"{clip.id}: " + unknown("class", clip.label, classes))
        if _pieces(clip) != shape:
            raise SetupError(
                f"{clip.id}: expected the modalities of the other clips, {_spelt(shape)}, found "
                f"{_spelt(_pieces(clip))}"
            )
        if _columns(clip.columns) != columns:
            raise SetupError(
                f"{clip.id}: expected the columns of the other clips, {_spelt(columns)}, found "
                f"{_spelt(_columns(clip.columns))}"
            )
        for piece in clip.pieces.values():
            for file in paths_of(piece):
                path = PurePosixPath(file)
                if path.is_absolute() or ".." in path.parts:
                    raise SetupError(f"{clip.id}: {file} leads out of {listing.root}")
    members: tuple[Clip | Failure, ...] = (*listing.clips, *listing.failures)
    for each in members:
        if each.split not in SPLITS:
            raise SetupError(f"{each.id}: " + unknown("split", each.split, SPLITS))
    names = (*RESERVED, *shape, *columns)
    for name, count in Counter(names).items():
        if count > 1:
            raise SetupError(f"{name}: expected columns and modalities that differ, found it twice")


def _refuse_texts(clip: Clip) -> None:
    texts = {name: piece.text for name, piece in clip.pieces.items() if isinstance(piece, Text)}
    for what, value in {"id": clip.id, "group": clip.group, **clip.columns, **texts}.items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise SetupError(
                f"{what} {value!r}: expected valid Unicode: rename the file, or mend the list"
            ) from error


def _pieces(clip: Clip) -> dict[str, str]:
    return {name: type(piece).__name__ for name, piece in clip.pieces.items()}


def _columns(columns: Mapping[str, str | float]) -> dict[str, str]:
    return {n: "text" if isinstance(value, str) else "number" for n, value in columns.items()}


def _spelt(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
