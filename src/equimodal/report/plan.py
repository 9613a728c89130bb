"""Which runs a comparison consists of, and how far each of them is.

The queue knows it. A folder that was copied without it, or while it was written to, is read by the
names of its runs instead: runs that were not begun are unknown then.
"""

from __future__ import annotations

import inspect
import re
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from equimodal.compare.queue import SILENCE
from equimodal.compare.runs import Entry, Run, numbers
from equimodal.methods.registry import available
from equimodal.report.reading import UnreadableError, cleaned, object_in

State = Literal["waiting", "training", "broken off", "failed"]
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
        The runs, and whether they come from the queue.
    """
    queued = _queued(folder / "study.db")
    known = {each.name for each in queued}
    try:
        names = sorted(path.name for path in (folder / "runs").iterdir() if path.is_dir())
    except OSError:
        names = []
    others = [_by_name(folder / "runs" / name, modalities) for name in names if name not in known]
    return [*queued, *(each for each in others if each is not None)], bool(queued)


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
    for each in options:
        others = {name: value for name, value in each.items() if name not in numeric}
        if len(numeric) != 1 or others != fixed or set(each) != set(first):
            return [Entry(label, method, dict(each)) for each in options]
    (name,) = numeric
    values = [each[name] for each in options]
    if not any(isinstance(value, Mapping) for value in values):
        values.sort()
    return [Entry(label, method, fixed, {name: tuple(values)})]


def _queued(database: Path) -> list[Planned]:
    if not database.is_file():
        return []
    # Read only: neither is anything made where there is nothing, nor does a writer have to wait.
    where = urllib.parse.quote(str(database.resolve()))
    try:
        storage = RDBStorage(
            f"sqlite:///file:{where}?mode=ro&uri=true",
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
        trials = [
            trial
            for study in storage.get_all_studies()
            for trial in storage.get_all_trials(study._study_id, deepcopy=False)
        ]
        storage.engine.dispose()
    except Exception:  # damaged, locked, or of another version: SQLAlchemy's errors are many
        return []
    latest: dict[str, Planned] = {}
    for trial in trials:  # a run that is done again is a further trial
        try:
            attributes = cleaned(trial.user_attrs)
            name, run = str(attributes["name"]), Run(**attributes["run"])
        except (KeyError, TypeError):
            continue
        if Path(name).name != name:  # it leads elsewhere
            continue
        latest[name] = Planned(name, run, _state(trial))
    return list(latest.values())


def _state(trial: FrozenTrial) -> State:
    if trial.state == TrialState.WAITING:
        return "waiting"
    if trial.state == TrialState.FAIL:
        return "failed"
    who = trial.user_attrs.get("taken by", {})
    seen = float(who.get("seen", 0)) if isinstance(who, dict) else 0.0
    alive = trial.state == TrialState.RUNNING and time.time() - seen < SILENCE
    return "training" if alive else "broken off"


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
    method = by_class.get(described.partition("(")[0], label)
    chosen = list(OPTION.finditer(found["chosen"]))
    kind = available().get(method)
    if kind is not None:  # a label may end like an option: "rate 1"
        known = inspect.signature(kind).parameters
        while chosen and chosen[0][1] not in known:
            label += str(cleaned(chosen.pop(0)[0]))
    options: dict[str, Any] = {}
    for name, modality, value in (each.groups() for each in chosen):
        options[name] = {modality: float(value)} if modality else float(value)
    for modality in modalities:
        if label == f"{modality} alone".replace(" ", "-"):
            label, method, options = f"{modality} alone", "unimodal", {"modality": modality}
    return Planned(folder.name, Run(label, method, options, int(found["seed"])), "broken off")
