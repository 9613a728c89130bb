"""Means over seeds, and what can be said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% bootstrap interval; the interval is NaN for fewer than 2 values."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    def __format__(self, spec: str) -> str:
        """Format in per cent, such as ``78.1 [76.9, 79.3]``; ``+`` in the spec shows signs."""
        sign = "+" if "+" in spec else ""
        if np.isnan(self.low):
            return f"{100 * self.mean:{sign}.1f}"
        return (
            f"{100 * self.mean:{sign}.1f} [{100 * self.low:{sign}.1f}, {100 * self.high:{sign}.1f}]"
        )


def estimate(values: Sequence[float], resamples: int = 10_000) -> Estimate:
    """Return the mean of one value per seed with its 95% percentile bootstrap interval.

    Few seeds make such an interval too narrow rather than too wide: of two seeds it is all between
    them. It speaks of seeds alone, not of the choice of test samples.

    >>> f"{estimate([0.5, 0.6, 0.7]):}"
    '60.0 [50.0, 70.0]'
    """
    data = np.asarray(values, dtype=float)
    if len(data) < 2 or np.ptp(data) == 0:
        spread = float("nan") if len(data) < 2 else float(data[0])
        mean = float(data.mean()) if len(data) else float("nan")
        return Estimate(mean, spread, spread, tuple(data.tolist()))
    interval = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(
        float(data.mean()), float(interval.low), float(interval.high), tuple(data.tolist())
    )


def difference(values: Sequence[float], reference: Sequence[float]) -> Estimate:
    """Return the mean of paired differences with its interval.

    Args:
        values: one for each seed.
        reference: those of the same seeds, in the same order.

    >>> f"{difference([0.5, 0.7], [0.4, 0.6]):+}"
    '+10.0 [+10.0, +10.0]'
    """
    pairs = zip(values, reference, strict=True)
    return estimate([round(ours - theirs, 12) for ours, theirs in pairs])
