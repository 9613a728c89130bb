"""From fresh seeds to a recommendation, by validation data; and what test data say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from equimodal.choosing.candidate import JOINT
from equimodal.compare.significance import holm, sign_flip
from equimodal.compare.statistics import difference

LEVEL = 0.05


@dataclass(frozen=True)
class Decision:
    """Which row is recommended.

    Attributes:
        winner: its label; that of joint training where no row is better beyond chance.
        chances: for each other row the one-sided p of being better than joint training, after
            Holm's correction for all of them.
        alike: rows that are not told apart from the winner, by a paired 95% interval.
    """

    winner: str
    chances: dict[str, float]
    alike: list[str]


def decide(
    scores: Mapping[str, Sequence[float]], settings: Sequence[Sequence[float]] = ()
) -> Decision:
    """Decide by validation scores on fresh seeds.

    A row other than joint training is recommended only if it is better by the exact sign-flip test,
    corrected for the number of rows; so where nothing helps, joint training is recommended in at
    least 95 of 100 studies. Of those that are better the highest mean is taken.

    Args:
        scores: for each row one score per seed, the same seeds in the same order; joint training
            among them, with its best setting.
        settings: scores of joint training with other settings; a row has to be better than each, so
            that no luck in tuning makes it seem so.
    """
    joints = [scores[JOINT], *settings]
    others = {label: values for label, values in scores.items() if label != JOINT}
    chances = holm(
        {name: max(_beyond(values, joint) for joint in joints) for name, values in others.items()}
    )
    better = [label for label, p in chances.items() if p <= LEVEL]
    winner = max(better, key=lambda label: fmean(scores[label]), default=JOINT)
    alike = []
    for label, values in scores.items():
        if label != winner:
            apart = difference(values, scores[winner])
            if not apart.high < 0:
                alike.append(label)
    return Decision(winner, chances, alike)


def _beyond(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the one-sided p of being better."""
    gain = [one - other for one, other in zip(ours, theirs, strict=True)]
    return sign_flip(gain) / 2 if fmean(gain) > 0 else 1.0
