"""Confirming what the race led to: fresh seeds, a decision by validation, and test data once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from equimodal.choosing.candidate import JOINT
from equimodal.choosing.decide import Decision, decide
from equimodal.choosing.race import Entrant, Raced
from equimodal.choosing.trainings import Trainings
from equimodal.errors import SetupError

FRESH = 1000  # the first of the seeds that play no part before


@dataclass(frozen=True)
class Confirmed:
    """What was confirmed.

    Attributes:
        rows: joint training with its best setting first, then others.
        val: by row, what validation says of each seed.
        tests: by row, what test data say of each seed: "score", and "samples" if each has its own.
        decision: by validation.
        seeds: fresh ones, or that of the race where the time was up.
        fresh: whether they are.
    """

    rows: Sequence[Entrant]
    val: Mapping[str, Sequence[float]]
    tests: Mapping[str, Sequence[Mapping[str, Any]]]
    decision: Decision
    seeds: Sequence[int]
    fresh: bool

    @property
    def winner(self) -> Entrant:
        """The row that is recommended."""
        return next(row for row in self.rows if row.label == self.decision.winner)

    @property
    def best_seed(self) -> int:
        """The seed whose model of the winner is best on validation data."""
        val = self.val[self.decision.winner]
        return max(self.seeds, key=lambda seed: val[self.seeds.index(seed)])

    @property
    def test(self) -> dict[str, list[float]]:
        """The scores on test data alone."""
        return {label: [each["score"] for each in found] for label, found in self.tests.items()}


def confirm(trainings: Trainings, raced: Raced, held: int, fresh: int) -> Confirmed:
    """Train finalists, baselines and joint training on fresh seeds, decide, and open the test data.

    Args:
        trainings: of the choice.
        raced: what the race has led to.
        held: baselines to confirm, joint training among them.
        fresh: how many seeds.

    Raises:
        SetupError: joint training did not finish.
    """
    late = trainings.late
    seeds = [0] if late else [FRESH + n for n in range(fresh)]
    trainings.stage = "fresh seeds"
    rows = [*raced.joints, *raced.others(held - 1), *raced.finalists]
    finished = trainings.trained([(row.trial, seed) for row in rows for seed in seeds], keep=True)
    scored: list[tuple[Entrant, list[float]]] = []
    for row in rows:
        names = [trainings.name(row.trial, seed, True) for seed in seeds]
        if all(name in finished for name in names):
            scored.append((row, [finished[name]["val"] for name in names]))
    joints = sorted((e for e in scored if e[0].label == JOINT), key=lambda e: -fmean(e[1]))
    if not joints:
        reason = trainings.reason or "the time was up"
        raise SetupError(f"joint training did not finish: {reason}")
    confirmed = [joints[0], *(each for each in scored if each[0].label != JOINT)]
    val = {row.label: values for row, values in confirmed}
    decision = _unconfirmed(val) if late else decide(val, [each for _, each in joints[1:]])
    trainings.stage = "test"
    tests = trainings.tested([row.trial for row, _ in confirmed], seeds)
    return Confirmed([row for row, _ in confirmed], val, tests, decision, seeds, not late)


def _unconfirmed(val: Mapping[str, Sequence[float]]) -> Decision:
    winner = max(val, key=lambda label: fmean(val[label]))
    return Decision(winner, {}, [label for label in val if label != winner])
