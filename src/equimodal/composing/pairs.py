"""Models that compare every sample of a batch with every other: logits of B x B."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from equimodal.errors import MatchError
from equimodal.method import Method
from equimodal.scores import Probe, Scores, evaluation
from equimodal.step import Step

READING = ("objective", "measure", "gate")


def refuse_pairs(step: Step, methods: Iterable[Method], scores: Scores) -> None:
    """Refuse methods and probes that read or replace what a contrastive model does not have.

    Its rows know the whole batch: classifiers on single features would learn positions in it, and
    a feature of zeros has no direction, of which similarities are NaN or their gradients are.

    Raises:
        MatchError: the logits are similarities of a batch, and a method reads them as classes.
    """
    reading: list[nn.Module] = [m for m in methods if any(map(m.overrides, READING))]
    reading += [scores] if isinstance(scores, Probe) else []
    if reading and compares_samples(step):
        shape = tuple(step.logits.shape)
        raise MatchError(
            f"{type(reading[0]).__name__} reads logits of classes, and these are similarities of "
            f"every sample with every other, shape {shape}: take a method that goes by scores "
            "alone, such as eq.OGM with scores= a function from features to logits, or give one "
            "loss per sample and modality, loss(losses={...})"
        )


def compares_samples(step: Step) -> bool:
    """Whether the second dimension of the logits is the batch: with fewer samples it shrinks.

    Where the model does not run on fewer samples, the target tells: every row's own.
    """
    size, shape = step.size, step.logits.shape
    if torch.compiler.is_compiling() or len(shape) < 2 or shape[1] != size or size < 2:
        return False
    fewer = {name: feature.detach()[:-1] for name, feature in step.features.items()}
    try:
        with torch.no_grad(), evaluation(step.boundary):
            return step.head(fewer).shape[0] != size - 1
    except (RuntimeError, ValueError, IndexError, TypeError):  # of the model, or of its shapes
        return _of_rows(step.target, size)


def _of_rows(target: object, size: int) -> bool:
    if not isinstance(target, Tensor) or target.ndim == 0 or len(target) != size:
        return False
    if target.ndim == 1 and not target.is_floating_point():
        places = torch.arange(size, device=target.device)
        return bool((target - target[0] == places).all())
    return target.ndim == 2 and target.shape[1] == size
