"""Scores by linear probes."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.readout import Readouts
from equimodal.scores.base import Scores
from equimodal.step import Shapes, Step


class Probe(Scores):
    """Linear probes on detached features, trained alongside: any fusion, any model.

    Nothing flows back into the encoders. The probes are trained by an optimizer of the balancer's
    own, of the class of the user's.
    """

    cost = "one linear layer per modality, trained alongside"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.readouts = Readouts()

    def build(self, shapes: Shapes, seed: int) -> None:
        self.readouts.build(shapes, seed)

    def logits(self, step: Step) -> dict[str, Tensor]:
        detached = {name: feature.detach() for name, feature in step.features.items()}
        return self.readouts(detached)  # type: ignore[no-any-return]

    def objective(self, step: Step) -> Tensor | None:
        logits = step.unimodal
        losses = [step.loss(logits[name], modality=name) for name in step.names]
        return torch.stack(losses).sum()
