"""How well the classes can be read from each encoder's features by a linear classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.contributions.reading import Metric, correct
from equimodal.diagnostics.encoders.logistic import STRENGTHS, choose_logistic
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_interval
from equimodal.diagnostics.randomness import observing
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError
from equimodal.methods.labels import class_labels
from equimodal.readout import feature_vectors

Pool = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Probes:
    """What linear probes on frozen encoders reach.

    Attributes:
        accuracy: or the mean of the metric, by modality.
        values: the metric of every evaluation sample, shape ``(N,)``, by modality.
        target: classes of the evaluation samples, shape ``(N,)``.
        strengths: L2 strength that was chosen, by modality.
        widths: number of features that were probed, by modality.
    """

    accuracy: dict[str, Interval]
    values: dict[str, Tensor]
    target: Tensor
    strengths: dict[str, float]
    widths: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the accuracy by modality as JSON values."""
        return {name: asdict(found) for name, found in self.accuracy.items()}


def probes(
    subject: Subject,
    train_loader: Iterable[Any],
    loader: Iterable[Any],
    *,
    strengths: Sequence[float] = STRENGTHS,
    pool: Pool = feature_vectors,
    metric: Metric = correct,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Probes:
    """Train a linear classifier on each frozen encoder's features, and evaluate it.

    It asks the encoder itself, past the joint head: a weak reading through the head beside a strong
    probe says that the head ignores the modality. The classifier is a multinomial logistic
    regression with an L2 penalty, trained to convergence in float64 on features that are computed
    once, in evaluation mode, and standardised by the training samples. The same call gives the same
    bits. For the accuracy of a probe see Alain and Bengio, ICLR 2017 (workshop).

    Limits: if samples come in groups, such as clips of one speaker, the samples that are held out
    to choose the strength have companions among the others. A probe sees no more of positions
    (pixels, time) than `pool` leaves.

    Args:
        subject: the model.
        train_loader: samples to train on; not the ones to evaluate.
        loader: samples to evaluate on.
        strengths: of the L2 penalty on the mean cross-entropy. Of several, one is chosen on a fifth
            of the training samples, drawn by a seeded permutation.
        pool: from a feature of shape ``(B, ...)`` to vectors ``(B, D)``. By default maps are
            averaged over space and time, sequences ``(B, T, D)`` over their steps. To flatten small
            ones: ``lambda feature: feature.flatten(1)``.
        metric: of (logits, target), one value per sample.
        resamples: of the bootstrap.
        seed: of the permutation, of the order of loaders that shuffle, and of the bootstrap.

    Raises:
        MatchError: the target is not one class per sample.
        SetupError: a loader is empty, or features are not finite or of varying width.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = probes(subject, [batch(60)], [batch(60, seed=2)])
    >>> list(found.accuracy)
    ['audio', 'visual']
    """
    if not strengths or not min(strengths) > 0:
        raise SetupError(f"strengths: expected one or more positive numbers, found {strengths}")
    train, target, classes = collected(subject, train_loader, pool, seed)
    tested, truth, _ = collected(subject, loader, pool, seed)
    accuracy, values, chosen = {}, {}, {}
    for name in subject.names:
        fitted = choose_logistic(train[name], target, classes, strengths, seed)
        chosen[name] = fitted.strength
        values[name] = metric(fitted.logits(tested[name]), truth).double()
        accuracy[name] = mean_interval(values[name], resamples, seed)
    widths = {name: features.shape[1] for name, features in train.items()}
    return Probes(accuracy, values, truth, chosen, widths)


def collected(
    subject: Subject, loader: Iterable[Any], pool: Pool, seed: int
) -> tuple[dict[str, Tensor], Tensor, int]:
    """Return what a linear classifier of features takes.

    Args:
        subject: the model.
        loader: the samples; those that have no class are left out.
        pool: see `probes`.
        seed: of the order of loaders that shuffle.

    Returns:
        Features, float64, shape ``(N, D)``, by modality; classes, shape ``(N,)``; and how many
        classes there are.

    Raises:
        MatchError: the target is not one class per sample.
        SetupError: the loader is empty, or features are not finite or of varying width.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in subject.names}
    targets, classes = [], 0
    with observing(subject, loader) as steps:
        torch.manual_seed(seed)  # the order of samples decides on the last bit
        for step in steps:
            target, counted = class_labels(step, "a linear probe")
            rows = slice(None) if counted is None else counted
            classes = step.logits.shape[1]
            targets.append(target[rows].cpu())
            for name, feature in step.features.items():
                found[name].append(_vectors(name, feature, pool)[rows].cpu())
    if not sum(map(len, targets)):
        raise SetupError("a linear probe needs samples: a loader gave none that has a class")
    features = {}
    for name, parts in found.items():
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise SetupError(
                f"the feature of {name} has {min(widths)} to {max(widths)} numbers by batch: give "
                "pool=, a function to vectors of one width, such as a mean over positions"
            )
        features[name] = torch.cat(parts).double()
        if not features[name].isfinite().all():
            raise SetupError(f"the feature of {name} is NaN or infinite for some samples")
    return features, torch.cat(targets), classes


def _vectors(name: str, feature: Tensor, pool: Pool) -> Tensor:
    vectors = pool(feature.detach())
    if vectors.ndim != 2 or len(vectors) != len(feature):
        raise SetupError(
            f"pool: expected vectors of shape ({len(feature)}, D) for the feature of {name}, found "
            f"{tuple(vectors.shape)}"
        )
    return vectors
