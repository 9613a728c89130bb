"""Choosing, from a user's function to a recommendation: the whole on one page."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from equimodal import data
from equimodal.choosing.candidate import JOINT, Candidate, Trial, baselines, candidates
from equimodal.choosing.choice import CHOICE, MODEL, PAGE, TABLE, Choice
from equimodal.choosing.decide import Decision, decide
from equimodal.choosing.plan import Plan, planned
from equimodal.choosing.race import Entrant, Raced, race
from equimodal.choosing.table import against, markdown, page, table
from equimodal.choosing.train import BEST
from equimodal.choosing.words import FEW, line, on_validation, paragraph
from equimodal.compare.statistics import harm
from equimodal.compare.task import noted
from equimodal.errors import SetupError
from equimodal.system.files import partial_of, write_whole
from equimodal.tasks import Engine, Local, Task, carry_out, holding, place
from equimodal.training import Encoder, Settings
from equimodal.training.claim import Claim
from equimodal.training.fit import versions

FRESH = 1000  # the first of the seeds that play no part before


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


def choose(
    what: str | data.Source,
    out: Path | str | None = None,
    *,
    budget: int | None = None,
    hours: float | None = None,
    methods: Sequence[str] | None = None,
    engine: str | Engine = "local",
    workers: int | None = None,
    limit: float | None = None,
    settings: Settings | None = None,
    encoder: Encoder = "small",
    say: Callable[[str], None] = print,
    show: Callable[[Told], None] = lambda told: None,
    **where: Any,
) -> Choice:
    """Choose a method for a model: baselines, a race, fresh seeds, and test data once.

    Interrupted at any moment, the same call goes on. See docs/choosing.md.

    Args:
        what: ``package.module:function``, which returns the model with all that training it takes;
            or a source of data, for a small model of ours.
        out: folder of the results; ``results/`` and a name by default.
        budget: of trainings; what all methods take by default.
        hours: instead of a budget: it is estimated from a few steps, and nothing is begun later.
        methods: some of them, such as "arl" or "ogm-ge+multi-loss"; all that can run by default.
        engine: "local", "ray", "slurm", or one of `equimodal.tasks`.
        workers: of "local", trainings at once; one for each core by default.
        limit: seconds that a training may take.
        settings: of a source, how to train.
        encoder: of a source, what encodes a modality.
        say: is called with the plan, before anything is trained.
        show: is called whenever there is something to show.
        where: address, cpus, gpus, partition: see `equimodal.tasks.engine_of`.

    Raises:
        SetupError: something does not fit, or another process is at this folder.
        KeyboardInterrupt: it was interrupted.
    """
    from equimodal.tasks import engine_of

    if budget is not None and hours is not None:
        raise SetupError("expected --budget or --hours, found both")
    if hours is not None and not hours > 0:
        raise SetupError(f"--hours: expected a number above 0, found {hours:g}")
    cores = os.cpu_count() or 1
    several = workers or cores
    if several < 1:
        raise SetupError(f"workers: expected 1 or more, found {several}")
    build = _spelt(what, settings, encoder)
    folder = Path(out) if out is not None else Path("results", _name(what))
    folder.mkdir(parents=True, exist_ok=True)
    claim = Claim(folder / "choosing.json", "a choice", {"build": build, "versions": versions()})
    claim.check()
    with holding(folder) as lock:
        claim.write()
        shared = {
            "build": build,
            "path": str(Path.cwd()) if isinstance(build, str) else None,
            "threads": max(1, cores // several),
        }
        needed = ("equimodal.choosing.train",)
        made: Engine
        if not isinstance(engine, str):
            made = engine
        elif engine == "local":
            made = Local(several, needed, lock)
        else:
            made = engine_of(engine, folder, **where)
        with made as running:
            work = Work(folder, running, shared, limit, show)
            probed = work.probe(methods)
            if hours is not None:
                budget = math.floor(hours * 3600 * several / max(probed["seconds"], 1e-3))
                work.deadline = time.monotonic() + hours * 3600
            return work.choose(probed, budget, say)


class Work:
    """The trainings of a choice, as tasks.

    Args:
        folder: of the results.
        engine: that runs them; entered.
        shared: what all specifications have in common.
        limit: seconds that a training may take.
        show: see `choose`.
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
        self.seconds: dict[str, list[float]] = {}  # of trainings, by the label of their row

    def probe(self, names: Sequence[str] | None) -> dict[str, Any]:
        """Return which candidates can run, and how long a training takes."""
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

    def choose(
        self, probed: Mapping[str, Any], budget: int | None, say: Callable[[str], None]
    ) -> Choice:
        """Carry out the plan, and recommend."""
        modalities = probed["modalities"]
        held = [b for b in baselines(modalities) if b.label not in probed["lacking"]]
        entered = candidates(probed["epochs"], probed["labels"])
        plan = planned(len(entered), len(held), budget)
        self.total = plan.cost
        say(str(plan))
        if probed["folds"]:
            self.shared = {**self.shared, "folds": probed["folds"]}
        if said := on_validation(probed, isinstance(self.shared["build"], str)):
            say(said)
        self.stage = "race"
        try:
            raced = race(plan, held, entered, modalities, self._validated)
        except SetupError as error:
            raise SetupError(f"{error}: {next(iter(self.failures.values()), '')}") from error
        late = time.monotonic() > self.deadline
        seeds = [0] if late else [FRESH + n for n in range(plan.fresh)]
        self.stage = "fresh seeds"
        rows = [*raced.joints, *raced.others(plan.held - 1), *raced.finalists]
        finished = self._trained([(row.trial, seed) for row in rows for seed in seeds], keep=True)
        scored: list[tuple[Entrant, list[float]]] = []
        for row in rows:
            names = [self._name(row.trial, seed, True) for seed in seeds]
            if all(name in finished for name in names):
                scored.append((row, [finished[name]["val"] for name in names]))
        joints = sorted((e for e in scored if e[0].label == JOINT), key=lambda e: -fmean(e[1]))
        if not joints:
            reasons = next(iter(self.failures.values()), "the time was up")
            raise SetupError(f"joint training did not finish: {reasons}")
        confirmed = [joints[0], *(each for each in scored if each[0].label != JOINT)]
        whole = [row for row, _ in confirmed]
        val = {row.label: values for row, values in confirmed}
        decision = _unconfirmed(val) if late else decide(val, [each for _, each in joints[1:]])
        tests = self._tested(whole, seeds)
        return self._recommended(plan, probed, raced, whole, val, tests, decision, seeds, late)

    # ------------------------------------------------------------------ trainings

    def _name(self, trial: Trial, seed: int, keep: bool) -> str:
        told = json.dumps([trial.methods(), trial.rate, trial.candidate.late], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:6]
        kept = "-kept" if keep else ""
        return f"{trial.candidate.label.replace(' ', '-')}-{digest}-seed-{seed}{kept}"

    def _task(self, trial: Trial, seed: int, keep: bool) -> Task:
        spec = {
            **self.shared,
            "methods": trial.methods(),
            "rate": trial.rate,
            "late": trial.candidate.late,
            "seed": seed,
            "keep": keep,
        }
        name = self._name(trial, seed, keep)
        own = self.folder / "runs" / name
        return Task(name, "equimodal.choosing.train:train", spec, own, limit=self.limit)

    def _validated(self, runs: Sequence[tuple[Trial, int]]) -> list[float | None]:
        found = self._trained(runs)
        names = [self._name(trial, seed, False) for trial, seed in runs]
        return [found[name]["val"] if name in found else None for name in names]

    def _trained(
        self, runs: Sequence[tuple[Trial, int]], keep: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Train, and return what validation says by name; nothing of what failed."""
        tasks = {t.name: t for t in (self._task(trial, seed, keep) for trial, seed in runs)}
        if time.monotonic() > self.deadline and not keep:
            tasks = {name: task for name, task in tasks.items() if task.done}
        labels = {self._name(t, seed, keep): t.candidate.label for t, seed in runs}
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
                        self.seconds.setdefault(label, []).append(said["seconds"])
                    else:
                        self.failures[outcome.task.name] = f"its score is {said['val']}"
            epochs = sum(place(task.folder) or 0 for task in self.engine.running())
            self.show(Told(self.done, self.total, epochs, self.stage))
        return found

    def _tested(self, rows: Sequence[Entrant], seeds: Sequence[int]) -> dict[str, list[Any]]:
        """Open the test data, once."""
        self.stage = "test"
        tasks = []
        for row in rows:
            for seed in seeds:
                task = self._task(row.trial, seed, True)
                result = task.folder / "test.json"
                tasks.append(
                    Task(
                        task.name,
                        "equimodal.choosing.train:evaluate",
                        task.spec,
                        task.folder,
                        result,
                    )
                )
        for outcome in carry_out(self.engine, tasks):
            if outcome is not None and outcome.reason:
                raise SetupError(f"{outcome.task.name}: on test data: {outcome.reason}")
        read = {task.name: json.loads((task.folder / "test.json").read_text()) for task in tasks}
        return {
            row.label: [read[self._name(row.trial, seed, True)] for seed in seeds] for row in rows
        }

    # ------------------------------------------------------------------ results

    def _about(self) -> str:
        build = self.shared["build"]
        return build if isinstance(build, str) else str(build["source"]["name"])

    def _costs(self) -> dict[str, float]:
        """Return how long each row trains, as a multiple of joint training."""
        medians = {label: median(seconds) for label, seconds in self.seconds.items()}
        plain = medians.get(JOINT) or math.nan
        return {label: seconds / plain for label, seconds in medians.items()}

    def _recommended(
        self,
        plan: Plan,
        probed: Mapping[str, Any],
        raced: Raced,
        rows: Sequence[Entrant],
        val: Mapping[str, Sequence[float]],
        tests: Mapping[str, Sequence[Mapping[str, Any]]],
        decision: Decision,
        seeds: Sequence[int],
        late: bool,
    ) -> Choice:
        test = {label: [each["score"] for each in found] for label, found in tests.items()}
        winner = next(row for row in rows if row.label == decision.winner)
        versus = None if winner.label == JOINT else against(tests[winner.label], tests[JOINT])
        chances = None
        if winner.label != JOINT:
            pairs = zip(test[winner.label], test[JOINT], strict=True)
            chances = harm([ours - theirs for ours, theirs in pairs])
        every = [value for values in (*val.values(), *test.values()) for value in values]
        shares = all(0 <= value <= 1 for value in every)
        text = paragraph(decision, val, test, versus, chances, shares, not late)
        methods = winner.trial.methods()
        pasted = line(methods, winner.trial.rate, probed["epochs"])
        best = max(seeds, key=lambda seed: val[winner.label][seeds.index(seed)])
        task = self._task(winner.trial, best, True)
        said = json.loads((task.folder / "result.json").read_text())
        state = torch.load(task.folder / BEST, weights_only=False)
        path = self.folder / MODEL
        torch.save({**state, "spec": dict(task.spec), "run": task.name}, partial_of(path))
        partial_of(path).replace(path)
        choice = Choice(winner.label, pasted, versus, chances, text, self.folder)
        found = table(raced, rows, val, tests, self._costs(), shares)
        lacking = {**dict.fromkeys(raced.failed, "failed in training"), **probed["lacking"]}
        notes = "\n".join(f"- {label}: {why}" for label, why in lacking.items())
        parts = [text, f"    {pasted}", str(plan), markdown(found), notes]
        write_whole(self.folder / TABLE, "\n\n".join(part for part in parts if part) + "\n")
        about = page(f"Choosing for {self._about()}", text, pasted, str(plan), found, lacking)
        write_whole(self.folder / PAGE, about)
        known = {
            "method": winner.label,
            "methods": methods,
            "rate": winner.trial.rate,
            "line": pasted,
            "text": text,
            "difference": None if versus is None else asdict(versus),
            "harm": None if chances is None else asdict(chances),
            "weights": said["weights"],
            "val": dict(val),
            "test": test,
            "chances": decision.chances,
            "failures": self.failures,
        }
        write_whole(self.folder / CHOICE, json.dumps(known, indent=1) + "\n")
        return choice


def _unconfirmed(val: Mapping[str, Sequence[float]]) -> Decision:
    winner = max(val, key=lambda label: fmean(val[label]))
    return Decision(winner, {}, [label for label in val if label != winner])


def _spelt(what: str | data.Source, settings: Settings | None, encoder: Encoder) -> Any:
    if isinstance(what, str) and ":" in what:
        return what
    source = data.Source(what) if isinstance(what, str) else what
    chosen = asdict(settings or Settings())
    told = {"source": noted(source), "settings": chosen, "encoder": encoder}
    return json.loads(json.dumps(told))


def _name(what: str | data.Source) -> str:
    name = what if isinstance(what, str) else what.name
    return f"choose-{Path(name.partition(':')[0]).stem}"


__all__ = ["Candidate", "Told", "choose"]
