"""What the model predicts from all modalities, and from each alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.attach.features import Features
from equimodal.diagnostics.contributions.moments import moments
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.traceless import passing, refuse_iterator, run
from equimodal.errors import MatchError, SetupError
from equimodal.functional.precision import at_least_single
from equimodal.methods.labels import class_labels
from equimodal.scores import Ablation, Auto
from equimodal.step import Step


@dataclass(frozen=True)
class Labels:
    """One prediction per sample.

    Attributes:
        labels: the class with the largest logit, int64, shape ``(N,)``.
        confidences: its softmax probability, shape ``(N,)``.
    """

    labels: Tensor
    confidences: Tensor


@dataclass(frozen=True)
class Predictions:
    """Predictions for all samples of a data set that have a class.

    Attributes:
        classes: how many the model knows.
        target: the true classes, int64, shape ``(N,)``.
        joint: from all modalities.
        alone: from each modality, read through the joint head.
    """

    classes: int
    target: Tensor
    joint: Labels
    alone: dict[str, Labels]

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        return tuple(self.alone)


def predictions(subject: Subject, loader: Iterable[Any]) -> Predictions:
    """Return the predictions from all modalities, and from each alone by the subject's scores.

    Scores that replace the other features by their mean, as "auto" does for heads that multiply
    features, take the mean over the data here, not over the batch: that tells the class where a
    batch holds few of them.

    Args:
        subject: a classifier: logits of shape ``(B, C)`` and one class per sample.
        loader: batches as the subject takes them; passed over twice where a mean is needed.

    Raises:
        MatchError: it is no classifier.
        SetupError: the loader gives nothing, or logits are NaN.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel(2)
    >>> with Subject(model, dict(model.encoders.items()), model.head) as subject:
    ...     found = predictions(subject, [batch(24, dtype=torch.float32)])
    >>> found.names, found.joint.labels.shape
    (('audio', 'visual'), torch.Size([24]))
    """
    means = means_of(subject, loader)
    targets: list[Tensor] = []
    joint: list[Labels] = []
    parts: dict[str, list[Labels]] = {name: [] for name in subject.names}
    classes = 0
    with passing(subject, loader) as steps:
        for step, _ in steps:
            target, counted = _classes(step)
            rows = torch.ones_like(target, dtype=torch.bool) if counted is None else counted
            targets.append(target[rows].cpu())
            classes = step.logits.shape[1]
            joint.append(_labels(step.logits[rows]))
            for name, logits in read_alone(step, means).items():
                parts[name].append(_labels(logits[rows]))
    alone = {name: _joined(of) for name, of in parts.items()}
    found = Predictions(classes, torch.cat(targets), _joined(joint), alone)
    for name, of in {"the model": found.joint, **alone}.items():
        _refuse_no_numbers(name, of)
    return found


def _classes(step: Step) -> tuple[Tensor, Tensor | None]:
    try:
        return class_labels(step, "reading predictions")
    except MatchError as error:
        raise MatchError(
            f"{error}. Of models for other tasks, diagnostics.subsets, shapley, utilisation and "
            "robustness take metric="
        ) from error


def _refuse_no_numbers(name: str, found: Labels) -> None:
    wrong = int(found.confidences.isnan().sum())
    if wrong:
        raise SetupError(
            f"the logits of {name} are not numbers for {wrong} of {len(found.labels)} samples: "
            "look for NaN among its inputs, features and parameters"
        )


def _labels(logits: Tensor) -> Labels:
    highest = at_least_single(logits).softmax(dim=1).max(dim=1)
    return Labels(logits.argmax(dim=1).cpu(), highest.values.cpu())


def _joined(parts: Sequence[Labels]) -> Labels:
    return Labels(
        torch.cat([each.labels for each in parts]), torch.cat([each.confidences for each in parts])
    )


def read_alone(step: Step, means: Features | None) -> Mapping[str, Tensor]:
    """Return the logits of each modality alone, shape ``(B, C)``, with `means_of` the data."""
    if means is not None:
        others = {n: means[n].to(f).expand_as(f) for n, f in step.features.items()}
        return {name: run(step, [name], others) for name in step.names}
    return step.unimodal


def means_of(subject: Subject, loader: Iterable[Any]) -> Features | None:
    """Return means of the features over data, where the scores replace by means; otherwise None.

    The mean over a batch that holds few classes tells which these are.

    Args:
        subject: the model; one batch tells what "auto" chooses.
        loader: batches as the subject takes them; passed over twice where a mean is needed.
    """
    scores = subject.attached.scores
    if isinstance(scores, Auto) and scores.chosen is None:
        refuse_iterator(loader)
        with passing(subject, loader) as steps:
            step, _ = next(steps)
            scores.logits(step)
    chosen = scores.chosen if isinstance(scores, Auto) else scores
    if isinstance(chosen, Ablation) and chosen.fill == "mean":
        return moments(subject, loader).means
    return None
