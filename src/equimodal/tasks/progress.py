"""How far a task is, as a number in its folder: the same on any engine."""

from __future__ import annotations

from pathlib import Path

PLACE = "place.txt"


def note(folder: Path, place: int) -> None:
    """Note how far a task is: epochs done, or the clip it begins with."""
    (folder / PLACE).write_text(f"{place}\n")


def place(folder: Path) -> int | None:
    """Return how far a task is; None if it has not begun, or is noting it just now."""
    try:
        text = (folder / PLACE).read_text()
    except OSError:
        return None
    return int(text) if text.endswith("\n") else None
