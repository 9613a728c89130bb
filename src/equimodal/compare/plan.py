"""Which runs a comparison consists of, in a file, so that others know of those not begun yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from equimodal.compare.runs import Run
from equimodal.system.files import write_whole

PLAN = "plan.json"


def note_plan(folder: Path, runs: Sequence[Run]) -> None:
    """Add runs to those that were asked for in a folder."""
    noted = {run.name: run for run in [*noted_runs(folder), *runs]}
    lines = ",\n".join(f" {json.dumps(asdict(run))}" for run in noted.values())
    write_whole(folder / PLAN, f"[\n{lines}\n]\n")


def noted_runs(folder: Path) -> list[Run]:
    """Return the runs that were asked for in a folder, in that order; none if none is known."""
    try:
        held: Any = json.loads((folder / PLAN).read_text())
        runs = [Run(**run) for run in held]
    except (OSError, ValueError, TypeError):
        return []
    # A name that leads elsewhere is not one of ours.
    return [run for run in runs if isinstance(run.label, str) and Path(run.name).name == run.name]
