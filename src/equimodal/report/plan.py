"""Which runs a comparison consists of, and how far each of them is.

Its plan says so. A folder without one, or of an earlier version, is read by the names of its runs
instead: runs that were not begun are unknown then.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equimodal.compare.plan import noted_runs
from equimodal.compare.runs import RATE, Entry, Run, numbers
from equimodal.methods.registry import available
from equimodal.report.reading import UnreadableError, cleaned, object_in
from equimodal.tasks.lock import HOLD, held
from equimodal.tasks.progress import PLACE
from equimodal.tasks.task import FAILED
from equimodal.training.diverged import reason

State = Literal["waiting", "not begun", "training", "broken off", "failed", "diverged"]
NAMED = re.compile(
    r"(?P<label>.+?)(?P<chosen>(?:-[A-Za-z_][\w.]*-[\d.e+-]*\d)*)-seed-(?P<seed>\d+)-\w+"
)
OPTION = re.compile(r"-([A-Za-z_]\w*)(?:\.(\w+))?-([\d.e+-]*\d)(?=-|$)")


@dataclass(frozen=True)
class Planned:
    """A run that was asked for.

    Attributes:
        name: of its folder.
        run: what it trains.
        state: how far it is, if it has no result.
    """

    name: str
    run: Run
    state: State


def planned(folder: Path, modalities: Sequence[str]) -> tuple[list[Planned], bool]:
    """Return the runs of a comparison in the order in which they were asked for.

    Args:
        folder: of the comparison.
        modalities: whose models of their own may be among the runs.

    Returns:
        The runs, and whether they come from a plan.
    """
    alive = held(folder / HOLD)
    noted = [
        Planned(run.name, run, state(folder / "runs" / run.name, alive))
        for run in noted_runs(folder)
    ]
    known = {each.name for each in noted}
    try:
        names = sorted(path.name for path in (folder / "runs").iterdir() if path.is_dir())
    except OSError:
        names = []
    others = [_by_name(folder / "runs" / name, modalities) for name in names if name not in known]
    return [*noted, *(each for each in others if each is not None)], bool(noted)


def entries_of(runs: Iterable[Run]) -> list[Entry]:
    """Return the rows that runs belong to: an option that is of numbers was one to choose from."""
    by_label: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        options = by_label.setdefault((run.label, run.method), [])
        if run.options not in options:
            options.append(run.options)
    return [
        entry
        for (label, method), options in by_label.items()
        for entry in _entries(label, method, options)
    ]


def _entries(label: str, method: str, options: Sequence[Mapping[str, Any]]) -> list[Entry]:
    first = options[0]
    numeric = [name for name, value in first.items() if numbers({name: value})]
    fixed = {name: value for name, value in first.items() if name not in numeric}
    beside = [name for name in numeric if name != RATE]
    for each in options:
        others = {name: value for name, value in each.items() if name not in numeric}
        if not numeric or len(beside) > 1 or others != fixed or set(each) != set(first):
            return [Entry(label, method, dict(each)) for each in options]
    grid = {name: _different(each[name] for each in options) for name in numeric}
    entry = Entry(label, method, fixed, grid)
    if len(entry.choices()) != len(options):
        return [Entry(label, method, dict(each)) for each in options]
    return [entry]


def _different(values: Iterable[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(found if any(isinstance(each, Mapping) for each in found) else sorted(found))


def state(folder: Path, alive: bool) -> State:
    """Return how far a run is that has no result; `alive` is whether somebody is at it."""
    if (folder / FAILED).exists():
        return "diverged" if reason(folder) else "failed"
    if not folder.is_dir():
        return "waiting" if alive else "not begun"
    return "training" if alive and (folder / PLACE).exists() else "broken off"


def _by_name(folder: Path, modalities: Sequence[str]) -> Planned | None:
    """Tell from the name of a folder, and from what is in it, which run it holds."""
    found = NAMED.fullmatch(folder.name)
    if found is None:
        return None
    label = str(cleaned(found["label"]))
    try:
        described = str(object_in(folder / "run.json").get("method", ""))
    except UnreadableError:
        described = ""
    by_class = {kind.__name__: name for name, kind in available().items()}
    classes = [by_class.get(each.partition("(")[0], "") for each in described.split(" + ")]
    method = "+".join(classes) if all(classes) else label
    chosen = list(OPTION.finditer(found["chosen"]))
    kind = available().get(method)
    if kind is not None:  # a label may end like an option: "rate 1"
        known = {*inspect.signature(kind).parameters, RATE}
        while chosen and chosen[0][1] not in known:
            label += str(cleaned(chosen.pop(0)[0]))
    options: dict[str, Any] = {}
    for name, modality, value in (each.groups() for each in chosen):
        options[name] = {modality: float(value)} if modality else float(value)
    for modality in modalities:
        if label == f"{modality} alone".replace(" ", "-"):
            label, method = f"{modality} alone", "unimodal"
            options = {"modality": modality, **options}
    return Planned(folder.name, Run(label, method, options, int(found["seed"])), "broken off")
