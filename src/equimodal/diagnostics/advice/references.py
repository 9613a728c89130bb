"""What the encoders of a model are held against: themselves, trained alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.advice.diagnosis import Together
from equimodal.diagnostics.encoders.alone import Alone
from equimodal.diagnostics.encoders.fused import fused
from equimodal.diagnostics.encoders.gap import values_of
from equimodal.diagnostics.interval import Interval, mean_interval
from equimodal.diagnostics.outputs.chance import chance
from equimodal.diagnostics.outputs.predictions import Predictions, predictions
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError, unknown

Known = Mapping[str, Tensor | float]


@dataclass(frozen=True)
class References:
    """What each encoder reaches alone.

    Attributes:
        known: as `gap` takes it.
        values: whether each sample was right, float64, shape ``(N,)``, by modality; constant where
            no more than an accuracy is known.
        tells: whether the modality is then better than chance.
        subject: the encoders, where they were trained here.
        bare: the modalities of which no more than an accuracy is known.
    """

    known: Known
    values: dict[str, Tensor]
    tells: dict[str, bool]
    subject: Subject | None
    bare: frozenset[str] = frozenset()


def references_of(
    alone: Alone | Known, loader: Iterable[Any], found: Predictions, resamples: int, seed: int
) -> References:
    """Return the references from what was trained, or from what is known.

    Args:
        alone: see `diagnose`.
        loader: the samples that they are of.
        found: predictions of the model on the same samples.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        SetupError: a modality is missing or unknown, or the samples are not the same.
    """
    if isinstance(alone, Alone):
        refuse_other_order(found.target, alone.target)
        read = predictions(alone.subject, loader)
        tells = {
            # By its predictions: they may tell, and be worse than the largest class.
            name: chance(of.labels, read.target, read.classes, resamples, seed).tells
            for name, of in read.alone.items()
        }
        values = {name: of.double() for name, of in alone.values.items()}
        return References(alone.values, values, tells, alone.subject)
    values = _values(alone, found)
    bare = frozenset(name for name, of in alone.items() if not isinstance(of, Tensor))
    largest = float(found.target.bincount().max()) / len(found.target)
    return References(
        alone,
        values,
        {name: mean_interval(of, resamples, seed).low > largest for name, of in values.items()},
        None,
        bare,
    )


def together_of(
    subject: Subject,
    references: References,
    found: Predictions,
    train_loader: Iterable[Any],
    loader: Iterable[Any],
    resamples: int,
    seed: int,
) -> Together | None:
    """Return what one linear head on all features reaches; None without encoders trained alone.

    Args:
        subject: the model.
        references: of its encoders.
        found: predictions of the model on the samples of `loader`.
        train_loader: samples to train the head on.
        loader: samples to evaluate on.
        resamples: of the bootstrap.
        seed: of what is drawn.
    """
    if references.subject is None:
        return None
    alone, joint = (
        fused(each, train_loader, loader, resamples=resamples, seed=seed)
        for each in (references.subject, subject)
    )
    right = (found.joint.labels == found.target).double()

    def paired(one: Tensor, other: Tensor) -> Interval:
        return mean_interval(one - other, resamples, seed)

    return Together(
        alone.accuracy,
        joint.accuracy,
        paired(alone.values, better((right, joint.values))),
        paired(joint.values, right),
        paired(alone.values, better(references.values.values())),
    )


def refuse_other_order(target: Tensor, again: Tensor) -> None:
    """Refuse a loader whose targets come in another order in another pass.

    Raises:
        SetupError: they do.
    """
    if not torch.equal(target, again.cpu()):
        raise SetupError(
            "the loader gave other samples, or another order, in another pass over the data: give "
            "one that does not shuffle"
        )


def better(values: Iterable[Tensor]) -> Tensor:
    """Return the values of several, each shape ``(N,)``, with the highest mean."""
    return max(values, key=lambda of: float(of.mean()))


def _values(known: Known, found: Predictions) -> dict[str, Tensor]:
    for name in known:
        if name not in found.names:
            raise SetupError("alone: " + unknown("modality", name, found.names))
    if absent := [name for name in found.names if name not in known]:
        raise SetupError(f"alone: expected every modality, {', '.join(absent)} missing")
    return {name: values_of(name, of, found.target) for name, of in known.items()}
