"""Whether predictions are better than chance, and which chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.interval import RESAMPLES, Interval, interval
from equimodal.errors import SetupError


@dataclass(frozen=True)
class Chance:
    """Accuracy against three levels of chance.

    Attributes:
        accuracy: of the predictions.
        uniform: of guessing every class alike, 1/C.
        largest_class: of always naming the class that is most frequent among the samples.
        independent: of these predictions, were they dealt out to other samples at random: the sum
            over classes of the share predicted times the share there is (Cohen, 1960).
        above_largest: accuracy minus `largest_class`, paired.
        above_independent: accuracy minus `independent`, paired.
    """

    accuracy: Interval
    uniform: float
    largest_class: float
    independent: float
    above_largest: Interval
    above_independent: Interval

    @property
    def tells(self) -> bool:
        """Whether the predictions depend on the samples beyond noise.

        They may do so and be worse than the largest class: where it has nine samples of ten, who
        finds 80% of either class has an accuracy of 80%.
        """
        return self.above_independent.low > 0

    @property
    def better(self) -> bool:
        """Whether the predictions are better than the most frequent class beyond noise."""
        return self.above_largest.low > 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "tells": self.tells, "better": self.better}


def chance(
    labels: Tensor, target: Tensor, classes: int, resamples: int = RESAMPLES, seed: int = 0
) -> Chance:
    """Compare predictions, such as those from one modality, with chance.

    Args:
        labels: predicted classes, int64, shape ``(N,)``.
        target: true classes, like them.
        classes: how many there are, C.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        SetupError: the shapes differ, or there is no sample.

    >>> target = torch.tensor([0, 0, 1]).repeat(40)
    >>> always = chance(torch.zeros(120, dtype=torch.int64), target, classes=3)
    >>> print(f"{always.accuracy}, but no better than {always.largest_class:.1%}: {always.better}")
    66.7 [59.2, 75.0], but no better than 66.7%: False
    """
    if labels.shape != target.shape or labels.ndim != 1 or not len(target):
        raise SetupError(
            "chance: expected predicted and true classes of one shape (N,), found "
            f"{tuple(labels.shape)} and {tuple(target.shape)}"
        )
    samples = len(target)

    def right(rows: Tensor) -> Tensor:
        return (labels[rows] == target[rows]).sum()

    def largest(rows: Tensor) -> Tensor:
        return target[rows].bincount().max()

    def paired(rows: Tensor) -> Tensor:
        predicted, there = (of[rows].bincount(minlength=classes) for of in (labels, target))
        return (predicted * there).sum()

    def over(statistic: Any) -> Interval:
        return interval(samples, statistic, resamples, seed)

    every = torch.arange(samples)
    return Chance(
        over(lambda rows: right(rows).double() / samples),
        1 / classes,
        float(largest(every)) / samples,
        float(paired(every)) / samples**2,
        over(lambda rows: (right(rows) - largest(rows)).double() / samples),
        over(lambda rows: (samples * right(rows) - paired(rows)).double() / samples**2),
    )
