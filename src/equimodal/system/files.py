"""Files that are there whole or not at all, also after the power has failed."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".partial"


def partial_of(path: Path) -> Path:
    """Return where a file is written before it gets its name."""
    return path.with_name(path.name + PARTIAL)


def write_whole(path: Path, text: str) -> None:
    """Write a text, unless the file holds it already.

    What cannot be encoded, such as a file name that is no Unicode, is spelt with backslashes.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; the file is as it was.
    """
    content = text.encode(errors="backslashreplace")
    if path.is_file() and path.read_bytes() == content:
        return
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            file.write(content)
            settle(file.fileno())
        publish(path)
    finally:
        partial.unlink(missing_ok=True)


def csv_of(rows: Iterable[Iterable[object]]) -> str:
    r"""Return rows as the text of a CSV file.

    >>> csv_of([["name", "says"], ["a", "yes, no"]])
    'name,says\na,"yes, no"\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def settle(descriptor: int) -> None:
    """Wait until a file is on the disk."""
    os.fsync(descriptor)


def publish(path: Path, partial: Path | None = None) -> None:
    """Give a file that is written its name; it replaces one that has it.

    Args:
        path: the name.
        partial: where it is; where `partial_of` says by default.
    """
    (partial or partial_of(path)).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the name may be lost, though the file is not
    finally:
        os.close(folder)
