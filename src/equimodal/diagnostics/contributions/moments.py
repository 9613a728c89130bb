"""Mean, spread and samples of the features, from a pass over data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.attach.features import Features
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.traceless import passing, refuse_iterator
from equimodal.errors import SetupError
from equimodal.functional.precision import at_least_single

POOL = 2048


@dataclass(frozen=True)
class Moments:
    """What a pass over data tells of the features.

    Attributes:
        samples: how many were passed over.
        means: of every element over the samples, shapes ``(...)``, by modality, at least in single
            precision.
        deviations: standard deviations like them, with N in the denominator.
        pool: features of some samples, shapes ``(P, ...)``, in the order of the pass.
        places: which samples of the pass these are, int64, shape ``(P,)``.
    """

    samples: int
    means: Features
    deviations: Features
    pool: Features
    places: Tensor


class _Running:
    """Mean and sum of squared differences to it of one feature, and its part of the pool."""

    def __init__(self, feature: Tensor) -> None:
        self.samples = 0
        self.mean = at_least_single(torch.zeros_like(feature[0]))
        self.squares = self.mean.clone()
        self.pool = feature[:0]

    def add(self, feature: Tensor, kept: Tensor) -> None:
        """Merge a batch: the difference of two large sums would lose the digits."""
        wide = at_least_single(feature)
        total = self.samples + len(wide)
        center = wide.mean(dim=0)
        gap = center - self.mean
        self.squares += (wide - center).square().sum(dim=0)
        self.squares += gap.square() * (self.samples * len(wide) / total)
        self.mean += gap * (len(wide) / total)
        self.samples = total
        self.pool = torch.cat([self.pool, feature])[kept.to(feature.device)]


def moments(subject: Subject, loader: Iterable[Any], seed: int = 0, limit: int = POOL) -> Moments:
    """Pass over data, and return mean, spread and samples of the features.

    Args:
        subject: the model.
        loader: batches as the subject takes them; must be able to be passed over again.
        seed: of the choice of samples for the pool.
        limit: largest number of samples in the pool; each has the same chance.

    Raises:
        SetupError: the loader is an iterator or gives nothing, or features have several shapes.
    """
    refuse_iterator(loader)
    generator = torch.Generator().manual_seed(seed)
    keys, places = torch.empty(0), torch.empty(0, dtype=torch.int64)
    running: dict[str, _Running] = {}
    with passing(subject, loader) as steps:
        for step, start in steps:
            places = torch.cat([places, torch.arange(start, start + step.size)])
            keys = torch.cat([keys, torch.rand(step.size, generator=generator)])
            kept = keys.argsort()[:limit].sort().values  # those with the smallest keys, in order
            keys, places = keys[kept], places[kept]
            for name, feature in step.features.items():
                of = running.setdefault(name, _Running(feature))
                _refuse_other_shape(name, feature, of.mean)
                of.add(feature, kept)
    return Moments(
        next(iter(running.values())).samples,
        {name: of.mean for name, of in running.items()},
        {name: (of.squares / of.samples).sqrt() for name, of in running.items()},
        {name: of.pool for name, of in running.items()},
        places,
    )


def _refuse_other_shape(name: str, feature: Tensor, mean: Tensor) -> None:
    if feature.shape[1:] != mean.shape:
        raise SetupError(
            f"features of {name}: found shapes {tuple(mean.shape)} and {tuple(feature.shape[1:])} "
            "in different batches, which have no mean and cannot be exchanged: pad all batches to "
            "one length, or use the fill 'zero' alone"
        )
