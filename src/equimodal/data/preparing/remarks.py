"""Clips that are kept though something is odd about them: listed by name, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from equimodal.data.preparing.folder import REMARKS
from equimodal.data.preparing.tables import first_words, write_table

COLUMNS = ("id", "path", "split", "remark")


@dataclass(frozen=True)
class Remark:
    """Something odd about a clip that is kept.

    Args:
        id: of the clip.
        path: of the file, relative to the source folder.
        split: that the clip is in.
        remark: see `equimodal.data.media.remarks`.
    """

    id: str
    path: str
    split: str
    remark: str


def write(folder: Path, remarks: Iterable[Remark]) -> None:
    """Write remarks.csv, which has its head alone where there is nothing to say."""
    write_table(folder / REMARKS, COLUMNS, remarks)


def counts(remarks: Iterable[Remark]) -> Counter[str]:
    """Count remarks by their first words.

    >>> counts([Remark("a", "a.mp4", "train", "clipped: 12.3% at full scale")])
    Counter({'clipped': 1})
    """
    return first_words(remark.remark for remark in remarks)
