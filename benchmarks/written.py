"""Pages, records and tables that a benchmark writes: text between marks, and what is stale."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def marked(text: str, mark: str, content: str) -> str:
    """Put content between a mark, as "map: answer", and the end that follows it."""
    pattern = re.compile(rf"(<!-- {re.escape(mark)} -->\n).*?(<!-- end -->)", re.DOTALL)
    made, count = pattern.subn(lambda m: f"{m[1]}{content}\n{m[2]}", text)
    if count != 1:
        raise SystemExit(f"expected the mark <!-- {mark} --> once, found it {count} times")
    return made


def made_of(*files: Path) -> str:
    """Return what a figure was made of: the names of files, and their digest together."""
    of = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    return f"{' and '.join(file.name for file in files)}, sha256 {of.hexdigest()[:16]}"


def renewed(texts: Mapping[Path, str], check: bool) -> bool:
    """Write the files whose text has changed, or say only that it would; return whether any has."""
    stale = False
    for path, text in texts.items():
        if not path.exists() or path.read_text() != text:
            stale = True
            print(f"{path.relative_to(ROOT)}: {'not what the table says' if check else 'written'}")
            if not check:
                path.write_text(text)
    return stale


def lines_of(path: Path, header: Sequence[str]) -> list[list[str]]:
    """Return the lines of a CSV file below its header; none where there is no file.

    Raises:
        ValueError: it is another table.
    """
    if not path.exists():
        return []
    found, *lines = csv.reader(path.read_text().splitlines())
    if found != header:
        raise ValueError(f"{path}: expected the columns {header}, found {found}")
    return lines
