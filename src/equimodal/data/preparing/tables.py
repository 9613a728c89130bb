"""Lists of clips with what there is to say of each, as CSV files, and how often each is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from equimodal.system.files import csv_of, write_whole


def write_table(path: Path, columns: Sequence[str], rows: Iterable[object]) -> None:
    """Write a table of the attributes that the columns name; its head alone where no row is."""
    lines = ([getattr(row, name) for name in columns] for row in rows)
    write_whole(path, csv_of([columns, *lines]))


def first_words(texts: Iterable[str]) -> Counter[str]:
    """Count texts by what stands before their first colon.

    >>> first_words(["truncated: 1.20 s of 3.00 s", "truncated: 0.40 s of 3.00 s", "no sound"])
    Counter({'truncated': 2, 'no sound': 1})
    """
    return Counter(text.split(":")[0] for text in texts)
