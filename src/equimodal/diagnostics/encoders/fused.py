"""How well the classes can be read from the features of all encoders together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.contributions.reading import Metric, correct
from equimodal.diagnostics.encoders.logistic import STRENGTHS, choose_logistic
from equimodal.diagnostics.encoders.probes import Pool, collected
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_interval
from equimodal.diagnostics.subject import Subject
from equimodal.readout import feature_vectors


@dataclass(frozen=True)
class Fused:
    """What a linear classifier of all features reaches.

    Attributes:
        accuracy: or the mean of the metric.
        values: the metric of every evaluation sample, shape ``(N,)``.
        target: classes of the evaluation samples, shape ``(N,)``.
    """

    accuracy: Interval
    values: Tensor
    target: Tensor


def fused(
    subject: Subject,
    train_loader: Iterable[Any],
    loader: Iterable[Any],
    *,
    strengths: Sequence[float] = STRENGTHS,
    pool: Pool = feature_vectors,
    metric: Metric = correct,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Fused:
    """Train a linear classifier on the features of all frozen encoders, and evaluate it.

    On encoders that were trained alone it says what they would reach together, without a joint
    training: what there is to win if joint training held none of them back. A lower bound, since
    nothing that the modalities tell only together was learned. On jointly trained encoders it says
    what another linear head would reach.

    Args:
        subject: the model; see `Alone.subject` for encoders that were trained alone.
        train_loader: samples to train on; not the ones to evaluate.
        loader: samples to evaluate on.
        strengths: of the L2 penalty, see `probes`.
        pool: from a feature to vectors, see `probes`.
        metric: of (logits, target), one value per sample.
        resamples: of the bootstrap.
        seed: as for `probes`.

    Raises:
        MatchError: the target is not one class per sample.
        SetupError: a loader is empty, or features are not finite or of varying width.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = fused(subject, [batch(60)], [batch(60, seed=2)])
    >>> found.accuracy.value > 1 / 3
    True
    """
    train, target, classes = collected(subject, train_loader, pool, seed)
    tested, truth, _ = collected(subject, loader, pool, seed)
    features, evaluated = (torch.cat(list(of.values()), dim=1) for of in (train, tested))
    fitted = choose_logistic(features, target, classes, strengths, seed)
    values = metric(fitted.logits(evaluated), truth).double()
    return Fused(mean_interval(values, resamples, seed), values, truth)
