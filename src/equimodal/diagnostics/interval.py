"""A number with its interval over samples, or over a few batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equimodal.errors import SetupError

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A number with its 95% interval over samples, by the bootstrap; over batches by Student's t.

    It speaks of the choice of evaluation samples alone: another training run may differ by more.

    Args:
        value: on all samples.
        low: its lower end; NaN where no interval is known, as of a number that somebody gave.
        high: its upper end, likewise.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """Format in per cent, such as ``78.1 [76.9, 79.3]``; ``+`` in the spec shows signs."""
        sign = "+" if "+" in spec else ""
        if not self.known:
            return f"{100 * self.value:{sign}.1f}"
        low, high = f"{100 * self.low:{sign}.1f}", f"{100 * self.high:{sign}.1f}"
        return f"{100 * self.value:{sign}.1f} [{low}, {high}]"

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    def to_dict(self) -> dict[str, float | None]:
        """Return JSON values; of an interval that is not known None."""
        low, high = (self.low, self.high) if self.known else (None, None)
        return {"value": self.value, "low": low, "high": high}

    @classmethod
    def from_dict(cls, found: Mapping[str, float | None]) -> Interval:
        """Return what `to_dict` was made of."""
        value, low, high = (found[name] for name in ("value", "low", "high"))
        return cls(*(math.nan if each is None else each for each in (value, low, high)))

    def excludes(self, value: float) -> bool:
        """Return whether a value lies outside the interval."""
        return not self.low <= value <= self.high


def mean_interval(values: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the mean of one value per sample, such as whether it was right, with its interval.

    Pair what is to be compared before: the mean of differences has a narrower interval than the
    difference of means.

    Args:
        values: shape ``(N,)``.
        resamples: how often samples are drawn anew.
        seed: of the draws; the same seed and number of samples draw the same samples.

    >>> print(f"{mean_interval(torch.tensor([1.0, 1.0, 0.0, 1.0] * 50)):}")
    75.0 [69.0, 81.5]
    """
    values = values.double().cpu()
    return interval(len(values), lambda rows: values[rows].mean(), resamples, seed)


def mean_intervals(values: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """Return `mean_interval` of every row, in one go: all rows are drawn alike.

    Args:
        values: shape ``(K, N)``.
        resamples: how often samples are drawn anew.
        seed: of the draws.

    Raises:
        SetupError: there is no sample.
    """
    values = values.double().cpu()
    samples = values.shape[1]
    if not samples:
        raise SetupError("expected a value of one sample or more, found none")
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(resamples):
        times = torch.randint(samples, (samples,), generator=generator).bincount(minlength=samples)
        means.append(values @ times.double() / samples)
    drawn = torch.stack(means, dim=1)
    lows, highs = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=1)
    return [
        Interval(*each)
        for each in zip(values.mean(dim=1).tolist(), lows.tolist(), highs.tolist(), strict=True)
    ]


def few_interval(values: Tensor) -> Interval:
    r"""Return the mean of one value per batch, or of other few values, with its interval.

    .. math:: \bar x \pm t_{n-1, 0.975} \, s / \sqrt{n}

    The bootstrap of a handful of values is too narrow: of five it covers 85% where 95% is said.

    Args:
        values: shape ``(N,)``; of one value the interval is that value.

    >>> print(f"{few_interval(torch.tensor([0.5, 0.6, 0.7])):}")
    60.0 [35.2, 84.8]
    """
    values = values.double().cpu()
    mean, many = float(values.mean()), len(values)
    half = student(many - 1) * float(values.std()) / math.sqrt(many) if many > 1 else 0.0
    return Interval(mean, mean - half, mean + half)


def student(freedom: int, share: float = 0.95) -> float:
    """Return how far from 0 a share of Student's t lies, both sides together.

    By bisection of the finite sums of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4: the core
    needs PyTorch alone, which has no such quantile.

    >>> round(student(4), 3), round(student(100), 3)
    (2.776, 1.984)
    """
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t over the root of the freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < share else (low, middle)
    return math.tan(high) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def interval(
    samples: int, statistic: Callable[[Tensor], Tensor], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return any statistic of samples with its interval.

    Args:
        samples: how many there are, N.
        statistic: from positions of samples, int64, shape ``(N,)``, some several times, to a
            number.
        resamples: how often samples are drawn anew.
        seed: of the draws.
    """
    value = float(statistic(torch.arange(samples)))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack(
        [
            statistic(torch.randint(samples, (samples,), generator=generator)).double()
            for _ in range(resamples)
        ]
    )
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value, low, high)
