"""Methods over several data sets: ranks, whether they differ at all, and which of them do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from equimodal.errors import SetupError


@dataclass(frozen=True)
class Ranks:
    """How methods rank over data sets.

    Attributes:
        mean: rank of each method, 1 is best, averaged over data sets; ties share theirs.
        p: of Friedman's test that all methods are alike.
        critical: mean ranks that differ by less are not told apart, at 5% over all pairs (Nemenyi).
        sets: how many data sets.
    """

    mean: dict[str, float]
    p: float
    critical: float
    sets: int

    def alike(self, one: str, other: str) -> bool:
        """Whether two methods are not told apart."""
        return self.p >= 0.05 or abs(self.mean[one] - self.mean[other]) < self.critical


def ranked(scores: Mapping[str, Mapping[str, float]]) -> Ranks:
    r"""Rank methods over data sets, as Demsar (JMLR 2006) recommends.

    .. math:: \mathrm{CD} = q_{0.05} \sqrt{k (k + 1) / (6 N)}

    Args:
        scores: by data set and method; higher is better. The same methods everywhere.

    Raises:
        SetupError: there are fewer than three methods or two data sets, or a method is missing.

    >>> found = ranked({d: {"a": 3.0, "b": 2.0, "c": 1.0} for d in ("one", "two", "three")})
    >>> found.mean, round(found.p, 3), round(found.critical, 2)
    ({'a': 1.0, 'b': 2.0, 'c': 3.0}, 0.05, 1.91)
    """
    methods = list(next(iter(scores.values()), {}))
    if len(methods) < 3 or len(scores) < 2:
        raise SetupError(
            "ranks need three methods on two data sets or more, found "
            f"{len(methods)} on {len(scores)}"
        )
    for name, by_method in scores.items():
        if set(by_method) != set(methods):
            odd = ", ".join(sorted(set(by_method) ^ set(methods)))
            raise SetupError(f"ranks need the same methods on all data sets: {odd} ({name})")
    table = np.array([[by_method[m] for m in methods] for by_method in scores.values()])
    ranks = stats.rankdata(-table, axis=1)
    sets, count = table.shape
    alike = bool(np.all(table == table[:, :1]))  # nothing to rank: SciPy divides by zero
    p = 1.0 if alike else float(stats.friedmanchisquare(*table.T).pvalue)
    quantile = stats.studentized_range.ppf(0.95, count, np.inf) / np.sqrt(2)
    critical = float(quantile * np.sqrt(count * (count + 1) / (6 * sets)))
    return Ranks(dict(zip(methods, ranks.mean(axis=0).tolist(), strict=True)), p, critical, sets)
