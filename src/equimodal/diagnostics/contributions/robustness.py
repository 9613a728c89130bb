"""What the model still achieves when a modality is missing, noisy, or another sample's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.attach.features import Features
from equimodal.diagnostics.contributions.fills import DRAWS, Fill, Mean, Shuffled, Zero
from equimodal.diagnostics.contributions.moments import moments
from equimodal.diagnostics.contributions.reading import Metric, correct, rate, read
from equimodal.diagnostics.finite import Finite
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_intervals
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.traceless import passing, run
from equimodal.errors import MatchError, SetupError
from equimodal.step import Step

LEVELS = (0.25, 0.5, 1.0)
Corrupt = Callable[[Any], Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """The metric under a disturbance.

    Attributes:
        value: under it.
        drop: without it minus under it, paired: above 0 where it harms.
    """

    value: Interval
    drop: Interval


@dataclass(frozen=True)
class Robustness:
    """The metric with one modality disturbed at a time, by modality.

    Attributes:
        clean: without a disturbance.
        zeros: its feature is zeros.
        missing: its feature is the mean over the data.
        swapped: its feature is that of another sample.
        noised: its feature has Gaussian noise, by level: the share of the standard deviation of
            each element of the feature.
        corrupted: the inputs went through the user's functions, by their names, not by modality.
    """

    clean: Interval
    zeros: dict[str, Change]
    missing: dict[str, Change]
    swapped: dict[str, Change]
    noised: dict[float, dict[str, Change]]
    corrupted: dict[str, Change]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; ``noised`` is at the highest level, ``levels`` has all of them."""
        highest = self.noised[max(self.noised)] if self.noised else {}
        kinds = {
            "missing": self.missing,
            "noised": highest,
            "swapped": self.swapped,
            "zeros": self.zeros,
            "corrupted": self.corrupted,
        }
        return {
            "clean": asdict(self.clean),
            **{kind: _dicts(of, "value") for kind, of in kinds.items()},
            "drop": {kind: _dicts(of, "drop") for kind, of in kinds.items()},
            "levels": {f"{level:g}": _dicts(of, "value") for level, of in self.noised.items()},
        }


def robustness(
    subject: Subject,
    loader: Iterable[Any],
    *,
    levels: Sequence[float] = LEVELS,
    corrupt: Mapping[str, Corrupt] | None = None,
    metric: Metric = correct,
    reference: Iterable[Any] | None = None,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Robustness:
    """Return the accuracy with each modality missing, noisy, or taken from another sample.

    Features are disturbed, in front of the head: noise there is not noise of a sensor. What
    corrupts the inputs themselves is given by `corrupt`.

    Args:
        subject: the model.
        loader: batches as the subject takes them; passed over twice.
        levels: of noise, as shares of the standard deviation of each element of a feature over the
            data.
        corrupt: by name, functions from a batch to a batch with other inputs; they must leave the
            batch itself, and the order of its samples, as they are. Seeding what is random in them
            is theirs.
        metric: from (logits, target) to one value per sample, shape ``(B,)``.
        reference: where mean, deviation and other samples come from; the loader by default.
        draws: other samples, and draws of noise, to average over.
        resamples: of the bootstrap.
        seed: of noise and other samples.

    Raises:
        MatchError: a function of `corrupt` returned another number of samples.
        SetupError: the metric does not fit the task, a level is not positive, or the loader gives
            nothing.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel(2)
    >>> with Subject(model, dict(model.encoders.items()), model.head) as subject:
    ...     found = robustness(subject, [batch(24, dtype=torch.float32)], levels=(0.5,))
    >>> sorted(found.noised[0.5])
    ['audio', 'visual']
    """
    if any(not 0 < level < float("inf") for level in levels) or draws < 1:
        raise SetupError(
            f"levels: expected positive numbers, found {list(levels)}; draws: 1 or more, {draws}"
        )
    known = moments(subject, loader if reference is None else reference, seed)
    fills: dict[str, Fill] = {
        "zeros": Zero(),
        "missing": Mean(known.means),
        "swapped": Shuffled(known.pool, known.places, draws, seed),
    }
    functions = dict(corrupt or {})
    names = subject.names
    without = [tuple(other for other in names if other != name) for name in names]
    noise = _Noise(known.deviations, levels, draws, seed)
    parts: dict[Key, list[Tensor]] = {}

    def add(kind: str, of: str, values: Tensor) -> None:
        parts.setdefault((kind, of), []).append(values)

    start = 0
    with passing(subject, _Corrupted(loader, functions)) as steps:
        for step, _ in steps:
            add("clean", "", rate(metric, step.logits, step))
            for kind, rows in read(step, start, without, fills, metric).items():
                for name, values in zip(names, rows, strict=True):
                    add(kind, name, values)
            for (kind, name), values in noise(step, metric).items():
                add(kind, name, values)
            for name in functions:
                other, _ = next(steps)
                _refuse_other_size(name, step, other)
                add("corrupted", name, rate(metric, other.logits, other))
            start += step.size
    changes = _changes({key: torch.cat(of) for key, of in parts.items()}, resamples)
    return Robustness(
        clean=changes[("clean", "")].value,
        **{kind: {name: changes[(kind, name)] for name in names} for kind in fills},
        noised={level: {name: changes[(f"{level}", name)] for name in names} for level in levels},
        corrupted={name: changes[("corrupted", name)] for name in functions},
    )


class _Noise:
    """The metric under noise on the feature of one modality, the same draws for all levels."""

    def __init__(
        self, deviations: Features, levels: Sequence[float], draws: int, seed: int
    ) -> None:
        self.deviations = deviations
        self.levels = levels
        self.draws = draws
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, step: Step, metric: Metric) -> dict[Key, Tensor]:
        total: dict[Key, Tensor] = {}
        for _ in range(self.draws):
            for name in step.names:
                feature = step.features[name]
                drawn = torch.randn(feature.shape, generator=self.generator).to(feature)
                noise = drawn * self.deviations[name].to(feature)
                others = [other for other in step.names if other != name]
                for level in self.levels:
                    logits = run(step, others, {name: feature + level * noise})
                    key, values = (f"{level}", name), rate(metric, logits, step)
                    total[key] = total[key] + values if key in total else values
        return {key: of / self.draws for key, of in total.items()}


class _Corrupted(Finite):
    """A loader that gives every batch, and after it the same one by each of some functions."""

    def __init__(self, loader: Iterable[Any], functions: Mapping[str, Corrupt]) -> None:
        super().__init__(loader)
        self.functions = functions

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield batch
            for function in self.functions.values():
                yield function(batch)


def _changes(values: Mapping[Key, Tensor], resamples: int) -> dict[Key, Change]:
    stacked = torch.stack(list(values.values())).double()
    clean = values[("clean", "")].double()
    both = zip(
        mean_intervals(stacked, resamples), mean_intervals(clean - stacked, resamples), strict=True
    )
    return {key: Change(*pair) for key, pair in zip(values, both, strict=True)}


def _dicts(changes: Mapping[str, Change], which: str) -> dict[str, dict[str, float]]:
    return {name: asdict(getattr(change, which)) for name, change in changes.items()}


def _refuse_other_size(name: str, step: Step, other: Step) -> None:
    if other.size != step.size:
        raise MatchError(
            f"corrupt[{name!r}]: expected a batch of {step.size} samples, as it was given, found "
            f"{other.size}"
        )
