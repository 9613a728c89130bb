"""What each modality adds to what the model achieves, shared out fairly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.contributions.fills import DRAWS, FILLS, make_fills
from equimodal.diagnostics.contributions.reading import Metric, correct, read
from equimodal.diagnostics.contributions.subsets import EXACT, Subsets, subsets
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_intervals
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.traceless import passing
from equimodal.errors import SetupError
from equimodal.functional.valuation import shapley_values

ORDERS = 64


@dataclass(frozen=True)
class Shapley:
    """Shapley values of the modalities, by what stands for those that are left out.

    Attributes:
        names: the modalities.
        values: of every sample, float64, shape ``(M, N)``, by fill. They sum to the metric of the
            sample from all modalities minus that from none.
        intervals: means over samples, by fill and modality.
        orders: how many orders of joining were sampled; None if the values are exact.
        standard_errors: of the means by the choice of orders, which the intervals do not show, by
            fill and modality; None if the values are exact.
    """

    names: tuple[str, ...]
    values: dict[str, Tensor]
    intervals: dict[str, dict[str, Interval]]
    orders: int | None = None
    standard_errors: dict[str, dict[str, float]] | None = None

    def versus(self, fill: str, first: str, second: str) -> Interval:
        """Return the paired difference between two modalities, first minus second."""
        rows = [self.names.index(name) for name in (first, second)]
        gap = self.values[fill][rows[0]] - self.values[fill][rows[1]]
        return mean_intervals(gap[None])[0]

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return JSON values by fill and modality; sampled ones have a ``standard_error``."""
        found = {f: {n: asdict(i) for n, i in by.items()} for f, by in self.intervals.items()}
        for fill, errors in (self.standard_errors or {}).items():
            for name, error in errors.items():
                found[fill][name]["standard_error"] = error
        return found


def shapley(
    subject: Subject,
    loader: Iterable[Any],
    *,
    fills: Sequence[str] = FILLS,
    metric: Metric = correct,
    orders: int | None = None,
    reference: Iterable[Any] | None = None,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Shapley:
    r"""Return the Shapley value of each modality: what it adds, averaged over orders of joining.

    .. math:: \phi_m = \sum_{S \not\ni m} \frac{|S|! \, (M - |S| - 1)!}{M!}
        \left( v(S \cup \{m\}) - v(S) \right)

    with v(S) the accuracy when the modalities outside S are replaced, see `subsets`. Exact from all
    subsets up to 8 modalities; beyond, from sampled orders of joining in pairs, each with its
    reverse, whose errors partly cancel.

    Args:
        subject: the model.
        loader: batches as the subject takes them; passed over twice, unless zeros are all.
        fills: some of "zero", "mean" and "shuffled".
        metric: from (logits, target) to one value per sample, shape ``(B,)``.
        orders: sample this many, an even number from 4; by default exact up to 8 modalities, 64
            beyond.
        reference: where mean and other samples come from; the loader by default.
        draws: other samples for each sample.
        resamples: of the bootstrap.
        seed: of orders and other samples.

    Raises:
        SetupError: the metric does not fit the task, the loader gives nothing, or `orders` is odd.

    Source: Shapley, 1953; antithetic pairs: Mitchell et al., Sampling Permutations for Shapley
    Value Estimation, JMLR 2022.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel(3)
    >>> with Subject(model, dict(model.encoders.items()), model.head) as subject:
    ...     found = shapley(subject, [batch(24, 3, dtype=torch.float32)], fills=("zero",))
    >>> list(found.intervals["zero"])
    ['audio', 'visual', 'text']
    """
    if orders is None and len(subject.names) <= EXACT:
        return shapley_of(
            subsets(
                subject, loader, fills=fills, metric=metric, reference=reference, draws=draws,
                resamples=resamples, seed=seed,
            ),
            resamples,
        )  # fmt: skip
    sampled = _Orders(subject.names, ORDERS if orders is None else orders, seed)
    made = make_fills(fills, subject, loader if reference is None else reference, draws, seed)
    parts: dict[str, list[Tensor]] = {name: [] for name in made}
    sums = {name: torch.zeros(sampled.pairs, len(subject.names)).double() for name in made}
    with passing(subject, loader) as steps:
        for step, start in steps:
            for name, of in read(step, start, sampled.members, made, metric).items():
                by_pair = sampled.contributions(of.double())
                parts[name].append(by_pair.mean(dim=0))
                sums[name] += by_pair.sum(dim=2)
    values = {name: torch.cat(each, dim=1) for name, each in parts.items()}
    errors = {
        name: _standard_error(total / values[name].shape[1]).tolist()
        for name, total in sums.items()
    }
    return Shapley(
        subject.names,
        values,
        _intervals(subject.names, values, resamples),
        2 * sampled.pairs,
        {name: dict(zip(subject.names, of, strict=True)) for name, of in errors.items()},
    )


def shapley_of(found: Subsets, resamples: int = RESAMPLES) -> Shapley:
    """Return the exact Shapley values from the values of all subsets.

    Args:
        found: of up to 8 modalities.
        resamples: of the bootstrap.

    Raises:
        SetupError: it does not hold every subset.
    """
    if len(found.members) != 2 ** len(found.names):
        raise SetupError(
            f"exact Shapley values need all subsets, which {len(found.names)} modalities have too "
            "many of: call shapley(subject, loader), which samples"
        )
    values = {fill: shapley_values(of.double()) for fill, of in found.values.items()}
    return Shapley(found.names, values, _intervals(found.names, values, resamples))


class _Orders:
    """Sampled orders of joining, each followed by its reverse, and the subsets on their way.

    Args:
        names: the modalities.
        orders: how many.
        seed: of the choice.
    """

    def __init__(self, names: tuple[str, ...], orders: int, seed: int) -> None:
        if orders < 4 or orders % 2:
            raise SetupError(f"orders: expected an even number from 4, found {orders}")
        self.pairs = orders // 2
        generator = torch.Generator().manual_seed(seed)
        self.joining = torch.stack(list(_pairs(len(names), self.pairs, generator)))
        places: dict[frozenset[int], int] = {}
        rows = [
            [
                places.setdefault(frozenset(order[:size]), len(places))
                for size in range(len(names) + 1)
            ]
            for order in self.joining.tolist()
        ]
        self.rows = torch.tensor(rows)  # where on its way each order meets which subset
        self.members = [
            tuple(name for place, name in enumerate(names) if place in kept) for kept in places
        ]

    def contributions(self, values: Tensor) -> Tensor:
        """Return what each modality adds, averaged over an order and its reverse.

        Args:
            values: of the subsets in `members`, shape ``(K, B)``.

        Returns:
            Shape ``(pairs, M, B)``.
        """
        added = values[self.rows].diff(dim=1)  # (orders, M, B), in the order of joining
        where = self.joining[:, :, None].expand_as(added)
        by_modality = torch.empty_like(added).scatter_(1, where, added)
        return by_modality.view(self.pairs, 2, *added.shape[1:]).mean(dim=1)


def _pairs(size: int, pairs: int, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(pairs):
        order = torch.randperm(size, generator=generator)
        yield order
        yield order.flip(0)


def _standard_error(means: Tensor) -> Tensor:
    """Return the standard error of the mean of rows."""
    error: Tensor = means.std(dim=0) / len(means) ** 0.5
    return error


def _intervals(
    names: Sequence[str], values: dict[str, Tensor], resamples: int
) -> dict[str, dict[str, Interval]]:
    return {
        fill: dict(zip(names, mean_intervals(of, resamples), strict=True))
        for fill, of in values.items()
    }
