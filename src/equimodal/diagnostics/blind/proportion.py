"""Shares of samples, whose intervals are no points where all or none of few have a property."""

from __future__ import annotations

import math

from equimodal.diagnostics.interval import Interval

NORMAL = 1.959963984540054  # beyond which 5% of a normal lie, on both sides together


def proportion(times: int, samples: int) -> Interval:
    r"""Return how often something is so, with Wilson's 95% interval.

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4 n^2}}{1 + z^2 / n}

    The bootstrap of 20 samples that are all alike says [100, 100]; this says [83.9, 100].

    Source: Wilson, JASA 1927.

    >>> print(f"{proportion(20, 20):}")
    100.0 [83.9, 100.0]
    """
    share, square = times / samples, NORMAL**2
    middle = share + square / (2 * samples)
    half = NORMAL * math.sqrt(share * (1 - share) / samples + square / (4 * samples**2))
    low, high = ((middle + side * half) / (1 + square / samples) for side in (-1, 1))
    return Interval(share, min(max(low, 0.0), share), max(min(high, 1.0), share))
