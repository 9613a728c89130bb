"""Whether differences could be chance, and how many seeds would tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

EXACT = 16  # differences, up to which all signs are tried: 65,536 of them
DRAWN = 50_000  # signs that are drawn for more
MOST = 1000  # seeds; nobody trains more


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p of the sign-flip permutation test on paired differences.

    If a method does nothing, each difference could as well have the other sign. The share of all
    signs whose mean is as far from 0 as the one seen is exact, whatever the shape of the spread;
    5 seeds cannot give less than 0.0625, 8 reach 0.0078.

    Args:
        differences: one for each seed. Beyond `EXACT` of them signs are drawn, always the same, and
            what was seen counts as one of them.

    >>> sign_flip([0.01, 0.02, 0.03, 0.01, 0.03])
    0.0625
    """
    data = np.asarray(differences, dtype=float)
    if not len(data):
        return 1.0
    if len(data) <= EXACT:
        bits = np.arange(2 ** len(data))[:, None] >> np.arange(len(data))
        signs = 1.0 - 2.0 * (bits & 1)
        extra = 0
    else:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (DRAWN, len(data)))
        extra = 1
    sums = np.abs(signs @ data)
    seen = abs(float(data.sum()))
    # Sums of the same numbers in another order differ in their last digits.
    far = int(np.sum(sums >= seen - 1e-12 * max(1.0, float(np.abs(data).sum()))))
    return (far + extra) / (len(signs) + extra)


def t_test(differences: Sequence[float]) -> float:
    """Return the two-sided p of the paired t test; 1 for fewer than two differences.

    Where all are equal there is no spread to go by: then it is that of `sign_flip`.

    >>> round(t_test([0.01, 0.02, 0.03, 0.01, 0.03]), 4)
    0.0111
    """
    data = np.asarray(differences, dtype=float)
    if len(data) < 2:
        return 1.0
    if np.ptp(data) == 0:
        return sign_flip(differences)
    return float(stats.ttest_1samp(data, 0.0).pvalue)


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Return p values corrected for their number, by Holm (1979), in the order given.

    Below 0.05 for any of them by chance in at most 5 of 100 studies, whatever they have in common.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, (name, p) in enumerate(sorted(chances.items(), key=lambda each: each[1])):
        largest = max(largest, min(1.0, (len(chances) - place) * p))
        corrected[name] = largest
    return {name: corrected[name] for name in chances}


def seeds_needed(spread: float, effect: float, power: float = 0.8) -> int:
    """Return how many paired seeds a t test at 5% needs to see a difference.

    Args:
        spread: standard deviation of the paired differences.
        effect: the difference to be seen, in the same units.
        power: the chance to see it.

    Returns:
        From 2 up; `MOST` where that is not enough.

    >>> seeds_needed(spread=1.8, effect=1.0), seeds_needed(spread=1.8, effect=2.0)
    (28, 9)
    """
    if effect <= 0 or spread < 0:
        raise ValueError(
            f"expected an effect above 0 and a spread of 0 or more: {effect}, {spread}"
        )
    many = np.arange(2, MOST + 1)
    enough = many[_power(spread, effect, many) >= power]
    return int(enough[0]) if len(enough) else MOST


def seen(spread: float, seeds: int, power: float = 0.8) -> float:
    """Return the smallest difference that so many paired seeds show with a chance of `power`.

    >>> round(seen(spread=1.8, seeds=28), 1)
    1.0
    """
    if spread == 0:
        return 0.0
    low, high = 0.0, 100.0 * spread
    for _ in range(60):
        middle = (low + high) / 2
        if _power(spread, middle, np.array([seeds]))[0] < power:
            low = middle
        else:
            high = middle
    return high


def _power(spread: float, effect: float, seeds: np.ndarray) -> np.ndarray:
    if spread == 0:
        return np.ones(len(seeds))
    freedom, away = seeds - 1, effect / spread * np.sqrt(seeds)
    reach = stats.t.ppf(0.975, freedom)
    above: np.ndarray = stats.nct.sf(reach, freedom, away)
    # Far out SciPy has NaN where there is no doubt left.
    return np.where(np.isnan(above), np.where(away > reach, 1.0, 0.0), above)
