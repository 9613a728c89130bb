"""What came of preparing, in a few lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equimodal.data.preparing import failures as left_out
from equimodal.data.preparing.folder import FAILURES, REMARKS


@dataclass(frozen=True)
class Summary:
    """What came of preparing.

    Args:
        folder: that holds the data set.
        dataset: what its dataset.json holds.
        reasons: how many clips are left out for each.
        bytes: of all shards.
        decoded: clips that this call has decoded; the others it has found.
        remarks: how many kept clips each of them is made on.
    """

    folder: Path
    dataset: dict[str, Any]
    reasons: Counter[str]
    bytes: int
    decoded: int
    remarks: Counter[str] = field(default_factory=Counter)

    @property
    def fingerprint(self) -> str:
        """12 hex digits over which sample is in which split with which label."""
        found: str = self.dataset["fingerprint"]
        return found

    @property
    def rows(self) -> dict[str, int]:
        """How many clips each split holds."""
        return {name: split["rows"] for name, split in self.dataset["splits"].items()}

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {rows:,}" for name, rows in self.rows.items())
        missing = sum(self.reasons.values())
        lines = [
            f"{self.dataset['name']} {self.fingerprint}: {sizes}; "
            f"{', '.join(self.dataset['modalities'])}; {len(self.dataset['classes'])} classes",
            f"{self.bytes / 1e6:,.1f} MB in {self.folder}",
        ]
        if missing:
            path = self.folder / FAILURES
            lines.append(f"{missing:,} left out: {left_out.spelt(self.reasons)}; see {path}")
        else:
            lines.append("no clip left out")
        if self.remarks:
            path = self.folder / REMARKS
            lines.append(f"odd, but kept: {left_out.spelt(self.remarks)}; see {path}")
        lines += [f"published list: {each}" for each in self.dataset.get("published", ())]
        lines += [f"shared: {each}" for each in self.dataset.get("shared", ())]
        return "\n".join(lines)
