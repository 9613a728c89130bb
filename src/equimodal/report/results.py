"""What a folder of results holds, in whatever state it is, and what is wrong with it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equimodal.compare.runs import Run
from equimodal.compare.summary import Row, summarised
from equimodal.errors import SetupError
from equimodal.report.outcome import odd, usable
from equimodal.report.picture import joined
from equimodal.report.plan import Planned, entries_of, planned, state
from equimodal.report.reading import (
    UnreadableError,
    cleaned,
    finite,
    number_in,
    numbers_in,
    object_in,
)
from equimodal.tasks.carry import left_in
from equimodal.training.diverged import DIVERGED
from equimodal.training.result import Result

SEVERAL = 6  # names that a notice lists


@dataclass(frozen=True)
class Held:
    """A run of the folder.

    Attributes:
        run: what it trains.
        state: "finished", or why there is no result.
        result: None if there is none that can be used.
    """

    run: Run
    state: str
    result: Result | None = None


@dataclass(frozen=True)
class Results:
    """The contents of a folder.

    Attributes:
        folder: where they are.
        comparison: whether it is a comparison, and not a single run.
        about: what the folder says that it holds.
        modalities: their names.
        runs: all that are known.
        rows: of the comparison; empty for a single run.
        seeds: of all runs.
        notices: what is missing or wrong.
    """

    folder: Path
    comparison: bool
    about: dict[str, Any]
    modalities: tuple[str, ...]
    runs: list[Held]
    rows: list[Row] = field(default_factory=list)
    seeds: tuple[int, ...] = ()
    notices: list[str] = field(default_factory=list)

    @property
    def data(self) -> str:
        """The name of the data set."""
        return str(self.about.get("data") or next((r.data for r in self.finished), "unknown data"))

    @property
    def fingerprint(self) -> str:
        """Of the splits and classes."""
        found = self.about.get("fingerprint") or next((r.fingerprint for r in self.finished), "")
        return str(found)

    @property
    def finished(self) -> list[Result]:
        """The results that can be used."""
        return [held.result for held in self.runs if held.result is not None]


def holds_comparison(folder: Path) -> bool:
    """Whether a folder is that of a comparison."""
    return (folder / "comparison.json").exists() or (folder / "runs").is_dir()


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / "run.json").exists() or (folder / "result.json").exists()


def read(folder: Path) -> Results:
    """Read the folder of a comparison or of a run.

    Raises:
        SetupError: it is neither.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise SetupError(f"{folder}: expected a folder of results, found {what}")
    if holds_comparison(folder):
        return _comparison(folder)
    if holds_run(folder):
        return _run(folder)
    raise SetupError(
        f"{folder} holds neither comparison.json, run.json nor diagnosis.json: expected the folder "
        "that equimodal compare, train or diagnose --out has written"
    )


def _comparison(folder: Path) -> Results:
    notices: list[str] = []
    about = _about(folder / "comparison.json", notices)
    modalities = _modalities(about, folder / "runs")
    plans, queued = planned(folder, modalities)
    problems: dict[str, list[str]] = {}
    runs = [_held(folder / "runs" / plan.name, plan, about, modalities, problems) for plan in plans]
    entries = entries_of(plan.run for plan in plans)
    seeds = tuple(sorted({plan.run.seed for plan in plans}))
    results = {held.run.name: held.result for held in runs if held.result is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an interval where there is NaN, which is said
        rows = summarised(entries, seeds, results, modalities)
    if not queued and plans:
        notices.append(
            "The plan of the comparison (plan.json) is not there or cannot be read: runs that were "
            "never begun are not known."
        )
    notices += _unfinished(runs, [folder / "runs" / plan.name for plan in plans]) + _of_rows(
        rows, [entry.label for entry in entries]
    )
    notices += [*_listed(problems), *_mixed(runs)]
    return Results(folder, True, about, modalities, runs, rows, seeds, notices)


def _run(folder: Path) -> Results:
    notices: list[str] = []
    about = _about(folder / "run.json", notices)
    modalities = _modalities(about, folder.parent, folder.name)
    settings = about.get("settings")
    seed = number_in(settings.get("seed")) if isinstance(settings, dict) else None
    method = str(about.get("method", "")).partition("(")[0] or "run"
    plan = Planned(folder.name, Run(method, method, {}, int(seed or 0)), state(folder, False))
    problems: dict[str, list[str]] = {}
    held = _held(folder, plan, about, modalities, problems)
    notices += _listed(problems)
    if held.state == "broken off":
        notices.append("The run has no result: it is still being trained, or was broken off.")
    elif held.state in ("failed", "diverged"):
        notices.append(_ended(f"The run has {held.state}", [folder]))
    return Results(folder, False, about, modalities, [held], notices=notices)


def _about(path: Path, notices: list[str]) -> dict[str, Any]:
    try:
        return object_in(path)
    except UnreadableError as error:
        notices.append(
            f"{path.name}: {error}. Data, settings and versions are taken from the results."
        )
        return {}


def _modalities(about: dict[str, Any], folder: Path, only: str = "*") -> tuple[str, ...]:
    """Return the modalities that are said, or else those that a result has accuracies of."""
    said = about.get("modalities")
    if isinstance(said, list) and said and all(isinstance(name, str) for name in said):
        return tuple(said)
    for path in sorted(folder.glob(f"{only}/result.json")):
        try:
            test = numbers_in(object_in(path).get("test"))
        except UnreadableError:
            continue
        found = [name.partition("/")[2] for name in test if name.startswith("accuracy/")]
        if found:
            return tuple(found)
    return ()


def _held(
    folder: Path,
    plan: Planned,
    about: dict[str, Any],
    modalities: Sequence[str],
    problems: dict[str, list[str]],
) -> Held:
    """Read a run's result, and note what is wrong with it."""
    path = folder / "result.json"
    if not path.exists():
        return Held(plan.run, plan.state)

    def wrong(reason: str) -> None:
        problems.setdefault(reason, []).append(f"{plan.run.label} (seed {plan.run.seed})")

    try:
        result = usable(object_in(path), modalities)
    except UnreadableError as error:
        wrong(f"result.json cannot be used: {error}")
        return Held(plan.run, "damaged")
    expected = about.get("fingerprint")
    if expected and result.fingerprint != expected:
        wrong(f"trained on other splits, {result.fingerprint} and not {expected}: left out")
        return Held(plan.run, "other data")
    if not (finite(result.val["accuracy"]) and finite(result.test["accuracy"])):
        wrong("the accuracy is not a number: left out")
        return Held(plan.run, "not a number")
    for which, first in odd(result).items():
        wrong(f"{which} is not a number{first}")
    return Held(plan.run, "finished", result)


def _listed(problems: dict[str, list[str]]) -> list[str]:
    """Say each problem once, with the runs that have it."""
    return [f"{_few(names)}: {reason}." for reason, names in problems.items()]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SEVERAL} more" if len(names) > SEVERAL else ""
    return f"{', '.join(names[:SEVERAL])}{more}"


def _unfinished(runs: Sequence[Held], folders: Sequence[Path]) -> list[str]:
    """Say how many runs are missing, and which have failed."""
    counts = Counter(held.state for held in runs)
    done = counts.pop("finished", 0)
    if not runs:
        return ["There are no runs in this folder."]
    if done == len(runs):
        return []
    states = joined([f"{count} {state}" for state, count in counts.items()])
    notices = [f"{done} of {len(runs)} runs are finished ({states}): this is a partial report."]
    for which in ("diverged", "failed", "broken off"):
        having = [place for place, held in enumerate(runs) if held.state == which]
        if having:
            names = [f"{runs[place].run.label} (seed {runs[place].run.seed})" for place in having]
            said = f"{which.capitalize()}: {_few(names)}"
            notices.append(_ended(said, [folders[place] for place in having]))
    return notices


def _ended(said: str, folders: Sequence[Path]) -> str:
    """Say how runs have ended, with the reason that the first of them has left."""
    said_in = [str(left_in(folder).get("message") or "") for folder in folders]
    reasons = [cleaned(each.removeprefix(DIVERGED)) for each in said_in if each]
    if not reasons:
        return f"{said}."
    first = "" if len(folders) == 1 else "of the first, "
    return f"{said}: {first}{reasons[0]}."


def _of_rows(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    notices = []
    short = [f"{row.entry.label} ({row.missing})" for row in rows if row.missing]
    if short:
        notices.append(f"Seeds that are missing: {', '.join(short)}.")
    absent = [label for label in labels if label not in {row.entry.label for row in rows}]
    if absent:
        notices.append(f"No seed is finished, so that there is no row: {', '.join(absent)}.")
    return notices


def _mixed(runs: Sequence[Held]) -> list[str]:
    versions = Counter(
        ", ".join(f"{name} {version}" for name, version in held.result.versions.items())
        for held in runs
        if held.result is not None
    )
    if len(versions) < 2:
        return []
    spelt = "; ".join(f"{count} with {each}" for each, count in versions.items())
    return [f"The runs were not all made with the same software: {spelt}."]
