"""What a data set is, where it comes from, and what may be done with it."""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """The facts about a data set; printed, it fits 80 columns.

    Args:
        name: what `equimodal.data.load` calls it.
        title: its full name.
        content: modalities with shapes and units, classes, how many samples.
        splits: who is in which split.
        source: where the numbers were taken from.
        authors: who made it.
        licence: under which licence it is passed on here.
        citation: what to cite.
        changes: what was done to the source.
        caution: what a reader of results should know.
    """

    name: str
    title: str
    content: str
    splits: str
    source: str
    authors: str
    licence: str
    citation: str
    changes: str
    caution: str

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.title}"]
        for field in dataclasses.fields(self)[2:]:
            # Addresses and DOIs stay whole, so that they can be clicked and copied.
            lines += textwrap.wrap(
                getattr(self, field.name),
                width=79,
                initial_indent=f"  {field.name:<10}",
                subsequent_indent=" " * 12,
                break_long_words=False,
                break_on_hyphens=False,
            )
        return "\n".join(lines)
