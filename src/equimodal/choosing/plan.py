"""What a budget of trainings is spent on, settled before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equimodal.choosing.candidate import RATES
from equimodal.compare.significance import seen
from equimodal.errors import SetupError

SPREAD = 1.8  # points: of paired differences on watch, the standard deviation in the median
# Joint training is what all else is held against: were its learning rate a lucky guess on one seed,
# whatever happens to have a better one would seem to help. So its best settings are all confirmed.
SETTINGS = 3
LAST = 4  # candidates that are left when halving ends, and that are searched
# Trials of the search, finalists, fresh seeds: the richest that can be afforded is taken. With two
# finalists and two baselines held against joint training, 7 seeds are the fewest for Holm at 5%.
RICHEST_FIRST = ((5, 2, 8), (3, 2, 8), (0, 2, 8), (0, 2, 7), (0, 1, 7), (0, 1, 6))


@dataclass(frozen=True)
class Plan:
    """How many trainings go where.

    Attributes:
        budget: of trainings in all.
        baselines: rows that are held against, each searched as hard as any finalist.
        candidates: methods and compositions in the first round.
        left_out: candidates that the budget does not reach.
        rounds: for each round of halving, how many candidates are in it, and on how many further
            seeds each is trained.
        search: trials beside the three learning rates, for those left and for all baselines.
        finalists: that are confirmed.
        held: baselines that are confirmed, joint training among them.
        fresh: seeds that play no part before.
    """

    budget: int
    baselines: int
    candidates: int
    left_out: int
    rounds: tuple[tuple[int, int], ...]
    search: int
    finalists: int
    held: int
    fresh: int

    @property
    def race(self) -> int:
        """Trainings of candidates before they are confirmed."""
        last = min(LAST, self.candidates)
        halving = sum(many * seeds for many, seeds in self.rounds)
        return self.candidates * len(RATES) + halving + last * self.search

    @property
    def cost(self) -> int:
        """Trainings in all."""
        tried = self.baselines * (len(RATES) + self.search)
        confirmed = self.finalists + self.held + SETTINGS - 1
        return tried + self.race + confirmed * self.fresh

    def __str__(self) -> str:
        rates = len(RATES)
        halving = "".join(f" + {many} x {seeds}" for many, seeds in self.rounds)
        search = f", each with {self.search} searched settings more" if self.search else ""
        least = seen(SPREAD, self.fresh)
        finalists = "finalists" if self.finalists > 1 else "finalist"
        text = (
            f"{self.cost} trainings: baselines {self.baselines} x {rates}{search}; race "
            f"{self.candidates} x {rates}{halving}; {self.finalists} {finalists} and {self.held} "
            f"baselines, joint training with {SETTINGS} settings, on {self.fresh} fresh seeds. "
            f"With a spread as on watch, differences under {least:.1f} points may stay unseen."
        )
        if self.left_out:
            text += (
                f" {self.left_out} of {self.candidates + self.left_out} candidates are left out, "
                "the last by name: give more trainings, or name those you want."
            )
        return text


def planned(candidates: int, baselines: int, budget: int | None = None) -> Plan:
    """Return the richest plan that a budget allows; for all candidates if any plan reaches them.

    Args:
        candidates: methods and compositions that can run.
        baselines: joint training among them.
        budget: of trainings; what the richest plan takes by default.

    Raises:
        SetupError: it is too small for a single candidate.
    """
    held = min(3, baselines)
    plans = [_plan(candidates, baselines, held, *settings) for settings in RICHEST_FIRST]
    if budget is None:
        return plans[0]
    for plan in plans:
        if plan.cost <= budget:
            return _with(plan, budget, 0)
    for many in range(candidates - 1, 0, -1):
        plan = _plan(many, baselines, held, *RICHEST_FIRST[-1])
        if plan.cost <= budget:
            return _with(plan, budget, candidates - many)
    least = _plan(1, baselines, held, *RICHEST_FIRST[-1]).cost
    raise SetupError(
        f"--budget: expected {least} trainings or more, found {budget}: {baselines} baselines at "
        f"three learning rates, one method, and {RICHEST_FIRST[-1][2]} fresh seeds take so many"
    )


def _with(plan: Plan, budget: int, left_out: int) -> Plan:
    return Plan(**{**vars(plan), "budget": budget, "left_out": left_out})


def _plan(
    candidates: int, baselines: int, held: int, search: int, finalists: int, fresh: int
) -> Plan:
    finalists = min(finalists, candidates)
    rounds = tuple(halvings(candidates, finalists))
    plan = Plan(0, baselines, candidates, 0, rounds, search, finalists, held, fresh)
    return Plan(**{**vars(plan), "budget": plan.cost})


def halvings(candidates: int, finalists: int) -> list[tuple[int, int]]:
    """Return the rounds after the first: half of those before, on twice as many seeds in all.

    >>> halvings(38, 2)
    [(19, 1), (10, 2), (5, 4), (4, 8)]
    """
    rounds: list[tuple[int, int]] = []
    many, more = candidates, 1
    while many > max(LAST, finalists):
        many = max(-(-many // 2), LAST)
        rounds.append((many, more))
        more *= 2
    if not rounds and many > finalists:
        rounds.append((many, 1))
    return rounds


def numbered(rounds: Sequence[tuple[int, int]]) -> list[range]:
    """Return the seeds of each round; 0 is that of the first.

    >>> numbered([(19, 1), (10, 2)])
    [range(1, 2), range(2, 4)]
    """
    found, first = [], 1
    for _, more in rounds:
        found.append(range(first, first + more))
        first += more
    return found
