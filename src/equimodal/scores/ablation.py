"""Scores by taking the other modalities away."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from equimodal.errors import SetupError, unknown, warn
from equimodal.scores.base import Scores
from equimodal.step import Step
from equimodal.system.modes import evaluation


class Ablation(Scores):
    """The head with the features of all other modalities replaced.

    The head runs in evaluation mode, so that its BatchNorm, dropout and random state are as if it
    had not run. For a model without a head (``head=None``), as with early fusion, the whole model
    runs, with what the encoders of the others returned replaced.

    Args:
        fill: what stands for the other features: zeros, or their mean over the micro-batch. With
            the mean, N micro-batches come close to one large batch, but do not equal it.
        temperature: see `Scores`.
    """

    cost = "a forward of the head (or model) per modality"

    def __init__(self, fill: Literal["zero", "mean"] = "zero", temperature: float = 1.0) -> None:
        super().__init__(temperature)
        if fill not in ("zero", "mean"):
            raise SetupError(unknown("fill", fill, ("zero", "mean")))
        self.fill = fill
        self._alone = False  # whether it was said that one sample has no mean

    def extra_repr(self) -> str:
        return f"fill={self.fill!r}"

    def logits(self, step: Step) -> dict[str, Tensor]:
        with evaluation(step.boundary):
            return {
                kept: step.head(
                    {
                        name: feature if name == kept else self._filled(feature)
                        for name, feature in step.features.items()
                    }
                )
                for kept in step.names
            }

    def _filled(self, feature: Tensor) -> Tensor:
        if self.fill == "zero":
            return torch.zeros_like(feature)
        if len(feature) == 1 and not (self._alone or torch.compiler.is_compiling()):
            self._alone = True
            warn(
                "a micro-batch of one sample: the mean that stands for the other modalities is the "
                "sample itself, so that all seem equally good in it, and none is slowed. Take "
                'larger micro-batches, or scores=eq.Ablation(fill="zero") or eq.Probe()'
            )
        return feature.detach().mean(dim=0, keepdim=True).expand_as(feature)
