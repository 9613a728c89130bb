"""The race of `equimodal choose` against training everything: how near it ends, at what share.

    python benchmarks/race.py [--data watch] [--epochs N] [--out DIR] [--workers N]

Everything is each candidate and baseline at three learning rates on five seeds; its winner is the
best mean on validation data. The race is played with the same trainings, and those that it asks for
beyond them. Both winners are then trained on fresh seeds. A training that is there is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from equimodal import data
from equimodal.choosing.candidate import RATES, Candidate, Trial, baselines, candidates, trials
from equimodal.choosing.plan import planned
from equimodal.choosing.race import race
from equimodal.compare.task import noted
from equimodal.tasks import Local, Task, carry_out
from equimodal.training import Settings

SEEDS = 5
FRESH = range(1000, 1008)


def main() -> None:
    """Read the options, and play."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="watch")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("results/race"))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    folder = given.out.absolute() / f"{given.data}-{given.epochs}"
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(epochs=given.epochs)
    shared = {
        "build": json.loads(
            json.dumps(
                {
                    "source": noted(data.Source(given.data)),
                    "settings": asdict(settings),
                    "encoder": "small",
                }
            )
        ),
        "path": None,
        "threads": 1,
    }
    with Local(given.workers, ("equimodal.choosing.train",)) as engine:
        play(folder, shared, engine, given.epochs)


def play(folder: Path, shared: dict[str, Any], engine: Local, epochs: int) -> None:
    """Train everything, play the race, confirm both winners, and print what came out."""
    probe = Task(
        "probe", "equimodal.choosing.probe:probe", {**shared, "names": None}, folder / "probe"
    )
    for outcome in carry_out(engine, [probe]):
        assert outcome is None or not outcome.reason, outcome
    probed = json.loads((folder / "probe" / "result.json").read_text())
    modalities = probed["modalities"]
    held = [row for row in baselines(modalities) if row.label not in probed["lacking"]]
    entered = candidates(epochs, probed["labels"])
    used: set[str] = set()

    def train(runs: Sequence[tuple[Trial, int]], split: str = "val") -> list[float | None]:
        tasks = [task(folder, shared, trial, seed) for trial, seed in runs]
        for outcome in carry_out(engine, {each.name: each for each in tasks}.values()):
            if outcome is not None and outcome.reason:
                print(outcome.task.name, outcome.reason, flush=True)
        used.update(each.name for each in tasks)
        files = [each.folder / "result.json" for each in tasks]
        return [json.loads(f.read_text())[split] if f.exists() else None for f in files]

    every = [(trial, seed) for trial in all_of(held, entered, modalities) for seed in range(SEEDS)]
    scores: dict[str, list[float]] = {}
    known: dict[str, Trial] = {}
    for (trial, _), score in zip(every, train(every), strict=True):
        key = f"{trial.candidate.label} x{trial.rate:g}"
        known[key] = trial
        if score is not None and score == score:
            scores.setdefault(key, []).append(score)
    whole = {key: fmean(of) for key, of in scores.items() if len(of) == SEEDS}
    best = max(whole, key=lambda key: whole[key])
    exhaustive, used = len(used), set()
    plan = planned(len(entered), len(held))
    raced = race(plan, held, entered, modalities, train)
    cost = len(used)
    ends = [each.trial for each in (*raced.finalists, *raced.baselines[:2], *raced.joints)]
    fresh = {
        trial_name(trial): fmean(s for s in train([(trial, n) for n in FRESH]) if s is not None)
        for trial in ends
    }
    winner = max(fresh, key=lambda name: fresh[name])
    truth = fmean(s for s in train([(known[best], n) for n in FRESH]) if s is not None)
    print(f"everything: {exhaustive} trainings of {epochs} epochs; best {best}")
    print(f"the race:   {cost} trainings, {cost / exhaustive:.2f} of them; best {winner}")
    print(f"on {len(FRESH)} fresh seeds: {100 * fresh[winner]:.1f} and {100 * truth:.1f}, ", end="")
    print(f"{100 * (fresh[winner] - truth):+.1f} points")


def all_of(
    held: Sequence[Candidate], entered: Sequence[Candidate], modalities: Sequence[str]
) -> list[Trial]:
    """Return every row at every learning rate of the first round."""
    return [trial for row in (*held, *entered) for trial in trials(row, len(RATES), modalities)]


def trial_name(trial: Trial) -> str:
    """Return what a trial is called in print."""
    return f"{trial.candidate.label} x{trial.rate:g} {dict(trial.options) or ''}".strip()


def task(folder: Path, shared: dict[str, Any], trial: Trial, seed: int) -> Task:
    """Return a training as a task; the same for the same trial and seed."""
    spec = {
        **shared,
        "methods": trial.methods(),
        "rate": trial.rate,
        "late": trial.candidate.late,
        "seed": seed,
        "keep": False,
    }
    told = json.dumps(spec, sort_keys=True)
    name = (
        f"{trial.candidate.label.replace(' ', '-')}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    )
    return Task(name, "equimodal.choosing.train:train", spec, folder / "runs" / name)


if __name__ == "__main__":
    main()
