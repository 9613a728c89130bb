"""The trainings of a choice, as tasks: begun on an engine, read from their folders."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equimodal.choosing.candidate import JOINT, Trial
from equimodal.choosing.words import FEW
from equimodal.errors import SetupError
from equimodal.tasks import Engine, Task, carry_out, place

Run = tuple[Trial, int]  # with its seed


@dataclass(frozen=True)
class Told:
    """How far choosing is.

    Attributes:
        done: trainings.
        total: trainings of the plan.
        epochs: done in those that run.
        stage: what is at it, in words.
    """

    done: int
    total: int
    epochs: int
    stage: str


class Trainings:
    """The trainings of a choice.

    Args:
        folder: of the results.
        engine: that runs them; entered.
        shared: what all specifications have in common.
        limit: seconds that a training may take.
        show: see `choose`.

    Attributes:
        deadline: of the monotonic clock, after which none is begun but those that are kept.
        total: trainings of the plan.
        stage: what is at it, in words.
        failures: reasons, by the name of a training.
        operations: of trainings, by the label of their row; None where they are not known.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        shared: Mapping[str, Any],
        limit: float | None,
        show: Callable[[Told], None],
    ) -> None:
        self.folder, self.engine, self.shared = folder.absolute(), engine, shared
        self.limit, self.show = limit, show
        self.deadline = math.inf
        self.done, self.total, self.stage = 0, 0, ""
        self.failures: dict[str, str] = {}
        self.operations: dict[str, list[float | None]] = {}

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.deadline

    @property
    def reason(self) -> str:
        """Why the first training failed that did; "" if none did."""
        return next(iter(self.failures.values()), "")

    def probe(self, names: Sequence[str] | None) -> dict[str, Any]:
        """Return which candidates can run, and how long a training takes.

        Raises:
            SetupError: one of those named cannot run, or joint training cannot.
        """
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:6]
        own = self.folder / f"probe-{digest}"
        named = None if names is None else list(names)
        spec = {**self.shared, "few": FEW, "names": named}
        task = Task("probe", "equimodal.choosing.probe:probe", spec, own)
        for outcome in carry_out(self.engine, [task]):
            if outcome is not None and outcome.reason:
                raise SetupError(outcome.reason.removeprefix("SetupError: "))
        found: dict[str, Any] = json.loads((own / "result.json").read_text())
        if names is not None and found["lacking"].keys() & set(names):
            label = next(name for name in names if name in found["lacking"])
            raise SetupError(f"{label} cannot run here: {found['lacking'][label]}")
        if JOINT in found["lacking"]:
            raise SetupError(f"joint training cannot run: {found['lacking'][JOINT]}")
        return found

    def validated(self, runs: Sequence[Run]) -> list[float | None]:
        """Train, and return what validation says; None of what failed."""
        found = self.trained(runs)
        names = [self.name(trial, seed, False) for trial, seed in runs]
        return [found[name]["val"] if name in found else None for name in names]

    def trained(self, runs: Sequence[Run], keep: bool = False) -> dict[str, dict[str, Any]]:
        """Train, and return what is known of each by name; nothing of what failed.

        Args:
            runs: trials with their seeds.
            keep: their best models.
        """
        tasks = {t.name: t for t in (self.task(trial, seed, keep) for trial, seed in runs)}
        if self.late and not keep:
            tasks = {name: task for name, task in tasks.items() if task.done}
        labels = {self.name(t, seed, keep): t.candidate.label for t, seed in runs}
        found = {}
        for outcome in carry_out(self.engine, tasks.values()):
            if outcome is not None:
                self.done += 1
                if outcome.reason:
                    self.failures[outcome.task.name] = outcome.reason
                else:
                    said = json.loads((outcome.task.folder / "result.json").read_text())
                    if math.isfinite(said["val"]):
                        found[outcome.task.name] = said
                        label = labels[outcome.task.name]
                        self.operations.setdefault(label, []).append(said.get("operations"))
                    else:
                        self.failures[outcome.task.name] = f"its score is {said['val']}"
            epochs = sum(place(task.folder) or 0 for task in self.engine.running())
            self.show(Told(self.done, self.total, epochs, self.stage))
        return found

    def tested(self, trials: Sequence[Trial], seeds: Sequence[int]) -> dict[str, list[Any]]:
        """Open the test data, once, and return by row what each seed's model comes to there.

        Raises:
            SetupError: a model cannot be run on it.
        """
        tasks = []
        for trial in trials:
            for seed in seeds:
                task = self.task(trial, seed, True)
                tasks.append(
                    Task(
                        task.name,
                        "equimodal.choosing.train:evaluate",
                        task.spec,
                        task.folder,
                        task.folder / "test.json",
                    )
                )
        for outcome in carry_out(self.engine, tasks):
            if outcome is not None and outcome.reason:
                raise SetupError(f"{outcome.task.name}: on test data: {outcome.reason}")
        read = {task.name: json.loads((task.folder / "test.json").read_text()) for task in tasks}
        return {
            trial.candidate.label: [read[self.name(trial, seed, True)] for seed in seeds]
            for trial in trials
        }

    def name(self, trial: Trial, seed: int, keep: bool) -> str:
        """Return what a training is called: by its row, all settings, and its seed."""
        told = json.dumps([trial.methods(), trial.rate, trial.candidate.late], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:6]
        kept = "-kept" if keep else ""
        return f"{trial.candidate.label.replace(' ', '-')}-{digest}-seed-{seed}{kept}"

    def task(self, trial: Trial, seed: int, keep: bool) -> Task:
        """Return a training as a task."""
        spec = {
            **self.shared,
            "methods": trial.methods(),
            "rate": trial.rate,
            "late": trial.candidate.late,
            "seed": seed,
            "keep": keep,
        }
        name = self.name(trial, seed, keep)
        own = self.folder / "runs" / name
        return Task(name, "equimodal.choosing.train:train", spec, own, limit=self.limit)
