"""Text that is read in a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 78
INDENT = 26  # where what an option means begins


def wrapped(text: str, indent: int = 0) -> str:
    """Break a paragraph into lines."""
    margin = " " * indent
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def described(entries: Sequence[tuple[str, str]], indent: int = INDENT) -> str:
    """Return terms with what they mean beside them, or below them where they are long."""
    lines = []
    for term, meaning in entries:
        body = wrapped(meaning, indent)
        start = f"  {term}"
        if len(start) <= indent - 2 and body:
            lines.append(f"{start:<{indent}}{body[indent:]}")
        else:
            lines += [start, body] if body else [start]
    return "\n".join(lines)
