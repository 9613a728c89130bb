"""What the model achieves from every subset of its modalities."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.contributions.fills import DRAWS, FILLS, make_fills
from equimodal.diagnostics.contributions.reading import Metric, correct, read
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_intervals
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.traceless import passing
from equimodal.functional.valuation import coalitions

EXACT = 8  # modalities; they have 256 subsets


@dataclass(frozen=True)
class Subsets:
    """The metric from subsets of the modalities, by what stands for the others.

    Attributes:
        names: the modalities.
        members: the subsets; the names in each are in the order of `names`.
        values: of every sample, shape ``(len(members), N)``, by fill.
        intervals: means over samples, in the order of `members`, by fill.
    """

    names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    values: dict[str, Tensor]
    intervals: dict[str, tuple[Interval, ...]]

    @property
    def samples(self) -> int:
        """How many samples were read."""
        return next(iter(self.values.values())).shape[1]

    def of(self, fill: str, *kept: str) -> Interval:
        """Return the mean of one subset with its interval; of no modality without `kept`."""
        return self.intervals[fill][self._row(kept)]

    def versus(self, fill: str, kept: Iterable[str], other: Iterable[str]) -> Interval:
        """Return the paired difference between two subsets, first minus second."""
        values = self.values[fill]
        gap = values[self._row(kept)].double() - values[self._row(other)].double()
        return mean_intervals(gap[None])[0]

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return JSON values: by fill and by subset, such as ``"audio+visual"``; ``""`` is none."""
        return {
            fill: {
                "+".join(kept): asdict(interval)
                for kept, interval in zip(self.members, intervals, strict=True)
            }
            for fill, intervals in self.intervals.items()
        }

    def _row(self, kept: Iterable[str]) -> int:
        kept = set(kept)
        return self.members.index(tuple(name for name in self.names if name in kept))


def subsets(
    subject: Subject,
    loader: Iterable[Any],
    *,
    fills: Sequence[str] = FILLS,
    metric: Metric = correct,
    reference: Iterable[Any] | None = None,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Subsets:
    """Return the accuracy of every subset of the modalities, the empty and the whole one included.

    What is left out is replaced in front of the head by zeros, by the mean feature of the data, or
    by the features of another sample (the same for all that is left out), and the model is read
    through its own head. Zeros are out of distribution for many heads, and a model may use the mean
    as evidence for a class: where the fills disagree, no one of them is right.

    Args:
        subject: the model.
        loader: batches as the subject takes them; passed over twice, unless zeros are all.
        fills: some of "zero", "mean" and "shuffled".
        metric: from (logits, target) to one value per sample, shape ``(B,)``; by default whether
            the largest logit is that of the class. A mean over samples is reported.
        reference: where mean and other samples come from; the loader by default.
        draws: other samples for each sample.
        resamples: of the bootstrap.
        seed: of the other samples.

    Returns:
        All 2^M subsets of up to 8 modalities; of more the empty one, single ones, all but one, and
        all. The head runs once for each, times the fills.

    Raises:
        SetupError: the metric does not fit the task, or the loader gives nothing.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel(2)
    >>> with Subject(model, dict(model.encoders.items()), model.head) as subject:
    ...     found = subsets(subject, [batch(24, dtype=torch.float32)])
    >>> list(found.to_dict()["mean"])
    ['', 'audio', 'visual', 'audio+visual']
    """
    members = _members(subject.names)
    made = make_fills(fills, subject, loader if reference is None else reference, draws, seed)
    parts: dict[str, list[Tensor]] = {name: [] for name in made}
    with passing(subject, loader) as steps:
        for step, start in steps:
            for name, read_values in read(step, start, members, made, metric).items():
                parts[name].append(read_values)
    values = {name: torch.cat(each, dim=1) for name, each in parts.items()}
    intervals = {name: tuple(mean_intervals(of, resamples)) for name, of in values.items()}
    return Subsets(subject.names, members, values, intervals)


def _members(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    if len(names) <= EXACT:
        rows = coalitions(len(names)).tolist()
        return tuple(tuple(itertools.compress(names, row)) for row in rows)
    single = [(name,) for name in names]
    without = [tuple(other for other in names if other != name) for name in names]
    return ((), *single, *without, names)
