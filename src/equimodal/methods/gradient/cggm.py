"""Gradients guided by the progress of unimodal classifiers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.cggm import cggm_coefficients, correctness, direction_loss
from equimodal.method import Capabilities, Method
from equimodal.methods.gradient.direction import Direction, GradientCosine
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class CGGM(Method):
    r"""Classifier-guided gradient modulation: magnitude and direction of the gradients.

    .. math::
        g_m \leftarrow \rho\, c_m g_m, \qquad
        c_m = 1 - \frac{\Delta_m}{10^{-8} + \sum_j \Delta_j}, \qquad
        L \leftarrow L + \lambda L_{gm}

    :math:`\Delta_m` is by how much the accuracy of a classifier on the feature of m rose since the
    step before, and in the first step the accuracy itself; the direction loss :math:`L_{gm}` turns
    the gradient of the fusion towards that of the classifiers with large c, those of the step
    before (Guo et al., NeurIPS 2024). The classifiers belong to the method, and nothing of their
    own loss reaches the encoders.

    Args:
        scale: the factor rho, above 0.
        weight: the weight lambda of the direction loss, 0 or more.
        bounds: smallest and largest c. The paper has none; c is then negative or huge where
            progress and regress cancel out. With a smallest of 0, batches of 64 stop some encoder
            in every second step, on noise alone.
        direction: what the direction loss compares: `GradientCosine()` (the paper, by default) or
            `WeightCosine()` (the released code).
        correct: from logits and target to the share of each sample that is right, shape ``(B,)``;
            `equimodal.functional.correctness` by default: the class, or the sign.
        modalities: those whose gradients are scaled, all by default. Progress is compared of all.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "cggm"
    search = searched(scale=Log(0.4, 4.0), weight=Log(0.05, 1.0))
    source = "Guo et al., NeurIPS 2024"
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(
        self,
        scale: float = 1.3,
        weight: float = 0.2,
        *,
        bounds: tuple[float, float] = (0.2, 1.0),
        direction: Direction | None = None,
        correct: Callable[[Tensor, Any], Tensor] | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise SetupError(f"CGGM(scale): expected a number above 0, found {scale}")
        if not 0 <= weight < math.inf:
            raise SetupError(f"CGGM(weight): expected a number of 0 or more, found {weight}")
        if not bounds[0] <= bounds[1]:
            raise SetupError(f"CGGM(bounds): expected (smallest, largest), found {bounds}")
        if direction is not None and not isinstance(direction, Direction):
            raise SetupError(
                "CGGM(direction): expected eq.GradientCosine() or eq.WeightCosine(), found "
                f"{direction!r}"
            )
        self.scale = scale
        self.weight = weight
        self.bounds = (bounds[0], bounds[1])
        self.direction = direction or GradientCosine()
        self.correct = correct or correctness
        self.modalities = None if modalities is None else tuple(modalities)
        self.readouts = Readouts()
        self.register_buffer("accuracies", torch.empty(0))
        self.register_buffer("shares", torch.empty(0))
        self._logits: dict[str, Tensor] = {}  # of the micro-batch that is being measured
        self._proposed: tuple[Tensor, Tensor] | None = None

    accuracies: Tensor
    shares: Tensor

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        self.accuracies = torch.zeros(len(self.names), dtype=shapes.dtype)  # before the first step
        self.shares = torch.full_like(self.accuracies, math.nan)

    def objective(self, step: Step) -> dict[str, Tensor]:
        features = {name: feature.detach() for name, feature in step.features.items()}
        logits: dict[str, Tensor] = self.readouts(features)
        self._logits = {name: of.detach() for name, of in logits.items()}
        terms = {name: step.loss(logits[name], modality=name) for name in self.names}
        if self.weight:
            layers = [layer for layer in self.readouts.layers if isinstance(layer, nn.Linear)]
            cosines = self.direction(step, logits, dict(zip(self.names, layers, strict=True)))
            shares = self.shares.to(cosines.dtype)  # NaN in the first step
            terms["direction"] = self.weight * direction_loss(shares, cosines)
        return terms

    def measure(self, step: Step) -> dict[str, Tensor]:
        logits, self._logits = self._logits, {}
        right = torch.stack(
            [self.correct(logits[n], step.target).to(logits[n].dtype) for n in self.names]
        )
        ignored = step.criterion.ignored(step.target)
        rows = counted(step, None if ignored is None else ~ignored)
        rows = torch.ones_like(right) if rows is None else rows.to(right.dtype)
        return {"right": (right * rows).sum(dim=1), "counts": rows.sum(dim=1)}

    def coefficients(self, evidence: Evidence) -> Tensor:
        right, counts = evidence.measured["right"], evidence.measured["counts"]
        there = counts > 0
        accuracies = right / torch.where(there, counts, 1)
        past = self.accuracies.to(accuracies)
        improvements = torch.where(there, accuracies - past, math.nan)
        shares = cggm_coefficients(improvements).clamp(*self.bounds)
        self._proposed = torch.where(there, accuracies, past), shares
        return torch.where(shares.isnan(), 1.0, self.scale * shares)

    def commit(self) -> None:
        if self._proposed is not None:
            (self.accuracies, self.shares), self._proposed = self._proposed, None
