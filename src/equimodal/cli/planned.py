"""What a comparison will take, said before it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from equimodal.cli.text import described, wrapped
from equimodal.system.extras import require

require("train", "rich")

from equimodal.compare import Comparison  # noqa: E402
from equimodal.compare.foreseen import foreseen, seconds_of_joint  # noqa: E402


def planned(comparison: Comparison, options: Any, left_out: Mapping[str, str]) -> str:
    """Say what would be trained, where, and what it takes."""
    labels = ", ".join(entry.label for entry in comparison.entries)
    facts = [
        ("data", f"{comparison.splits}"),
        ("rows", labels),
        ("left out", "; ".join(f"{name}: {why}" for name, why in left_out.items())),
        ("seeds", ", ".join(map(str, comparison.seeds))),
        ("epochs", str(comparison.settings.suited(comparison.splits.card.name).epochs)),
        ("folder", str(comparison.folder)),
    ]
    said = described([(name, what) for name, what in facts if what], 12)
    return f"{said}\n\n{taken(comparison, options)}"


def taken(comparison: Comparison, options: Any) -> str:
    """Say what the comparison will take."""
    workers = None if options.engine != "local" else options.workers or os.cpu_count() or 1
    how = (comparison.splits, comparison.settings, options.encoder)
    runs, missing = len(comparison.runs), comparison.missing()
    seconds = seconds_of_joint(*how, workers) if missing else 0.0
    seeds = len(comparison.seeds)
    return wrapped(foreseen(comparison.entries, seeds, runs - missing, seconds, workers))
