"""Folders that a command writes to: named, held, and gone again where nothing came of them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from equimodal.errors import SetupError
from equimodal.tasks import HOLD, holding


def new_or_existing_folder(path: Path) -> Path:
    """Take a folder to write to.

    Raises:
        SetupError: it is a file or within one, or cannot be written to.
    """
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise SetupError(f"--out: {place} is a file, expected a folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise SetupError(f"--out: {place} cannot be written to")
            break
    return path


def numbered(name: str) -> Path:
    """Return the folder of a run that was given none: the first in ``runs`` that is not there."""
    return next(
        folder
        for number in itertools.count(1)
        if not (folder := Path("runs", f"{name}-{number}")).exists()
    )


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[Path]:
    """Make and hold a folder; where nothing was written to it, it is not left behind.

    Raises:
        SetupError: another process holds it, or it cannot be made.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    before = None if made else {path.name for path in folder.iterdir()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"--out: {folder} cannot be made: {error.strerror}") from error
    with holding(folder):
        try:
            yield folder
        finally:
            if {path.name for path in folder.iterdir()} == {HOLD} | (before or set()) and (
                before is None or HOLD not in before
            ):
                (folder / HOLD).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # somebody else has put something there
                    for place in made:
                        place.rmdir()
