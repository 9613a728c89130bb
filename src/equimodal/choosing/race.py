"""The race: baselines first, then halving over paired seeds, on validation data alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from equimodal.choosing.candidate import JOINT, RATES, Candidate, Trial, trials
from equimodal.choosing.plan import LAST, SETTINGS, Plan, numbered
from equimodal.errors import SetupError

Run = tuple[Trial, int]  # with its seed
Train = Callable[[Sequence[Run]], list[float | None]]  # validation scores; None where one failed


@dataclass
class Entrant:
    """A candidate in the race, with the trial that was best so far.

    Attributes:
        trial: which.
        scores: of that trial on validation data, by seed.
        reached: rounds it took part in, the first included.
    """

    trial: Trial
    scores: dict[int, float] = field(default_factory=dict)
    reached: int = 1

    @property
    def label(self) -> str:
        """Its row."""
        return self.trial.candidate.label


@dataclass(frozen=True)
class Raced:
    """What the race has led to.

    Attributes:
        baselines: all, the best first.
        joints: the best settings of joint training.
        finalists: the best first.
        entrants: all candidates that finished any training, by label.
        failed: labels of those that did not.
    """

    baselines: list[Entrant]
    joints: list[Entrant]
    finalists: list[Entrant]
    entrants: dict[str, Entrant]
    failed: list[str]

    def others(self, many: int) -> list[Entrant]:
        """Return the best baselines beside joint training."""
        return [each for each in self.baselines if each.label != JOINT][:many]


def race(
    plan: Plan,
    baselines: Sequence[Candidate],
    candidates: Sequence[Candidate],
    modalities: Sequence[str],
    train: Train,
) -> Raced:
    """Run the race that was planned.

    Every candidate is trained at three learning rates on one seed, and keeps its best. Half of them
    go on to each round, by their mean over the seeds that all of them have. Before the last round
    those that are left are searched, as hard as all baselines were.

    Args:
        plan: see `planned`.
        baselines: what is held against.
        candidates: as many as planned.
        modalities: their names.
        train: trains, and returns validation scores in the same order; None for what failed.

    Raises:
        SetupError: joint training failed.
    """
    first = len(RATES)
    scored = _scored(baselines, first + plan.search, modalities, train)
    tried = _best(scored)
    if JOINT not in tried:
        raise SetupError("joint training failed at every learning rate")
    strong = sorted(tried.values(), key=lambda each: -each.scores[0])
    ours = [each for each in scored if each.label == JOINT]
    joints = sorted(ours, key=lambda each: -each.scores[0])[:SETTINGS]
    entrants = _best(_scored(candidates[: plan.candidates], first, modalities, train))
    failed = [each.label for each in candidates[: plan.candidates] if each.label not in entrants]
    left, shared = sorted(entrants.values(), key=lambda each: -each.scores[0]), [0]
    rounds = list(zip(plan.rounds, numbered(plan.rounds), strict=True))
    for place, ((many, _), seeds) in enumerate(rounds):
        left = left[:many]
        last = place == len(rounds) - 1
        if last:
            left = left[:LAST] if plan.search else left
            shared = [0]  # of what the search finds there is no other seed
            _searched(left, plan.search, modalities, train)
        shared = [*shared, *seeds]
        found = iter(train([(each.trial, seed) for each in left for seed in seeds]))
        for each in left:
            each.reached += 1
            each.scores.update({s: v for s in seeds if (v := next(found)) is not None})
        left = [each for each in left if set(shared) <= set(each.scores)]
        left.sort(key=lambda each: -fmean(each.scores[seed] for seed in shared))
    if not rounds:
        _searched(left, plan.search, modalities, train)
        left.sort(key=lambda each: -each.scores[0])
    return Raced(strong, joints, left[: plan.finalists], entrants, failed)


def _scored(
    rows: Sequence[Candidate], many: int, modalities: Sequence[str], train: Train
) -> list[Entrant]:
    """Train the first trials of each row on seed 0, and return those that did not fail."""
    every = [trial for row in rows for trial in trials(row, many, modalities)]
    found = zip(every, train([(trial, 0) for trial in every]), strict=True)
    return [Entrant(trial, {0: score}) for trial, score in found if score is not None]


def _best(scored: Sequence[Entrant]) -> dict[str, Entrant]:
    """Return the best trial of each row that has any; the first of several that are equal."""
    best: dict[str, Entrant] = {}
    for each in scored:
        if each.label not in best or each.scores[0] > best[each.label].scores[0]:
            best[each.label] = each
    return best


def _searched(
    left: Sequence[Entrant], search: int, modalities: Sequence[str], train: Train
) -> None:
    runs = [
        (each, trial)
        for each in left
        for trial in trials(each.trial.candidate, len(RATES) + search, modalities)[len(RATES) :]
    ]
    for (each, trial), score in zip(runs, train([(t, 0) for _, t in runs]), strict=True):
        if score is not None and score > each.scores[0]:
            each.trial, each.scores = trial, {0: score}
