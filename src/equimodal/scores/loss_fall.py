"""Evidence from how far the losses that the user hands over have fallen."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from equimodal import functional
from equimodal.evidence import Evidence
from equimodal.scores.given import Given
from equimodal.step import Shapes


class LossFall(Given):
    r"""Evidence from the fall of each loss since the first step: no temperature to choose.

    .. math:: s_m = \frac{L_{m,0}}{L_{m,t}}

    L is the mean of ``balancer.loss(losses={...})`` over all samples of an optimizer step that have
    the modality, over micro-batches and ranks. :math:`L_{m,t} / L_{m,0}` is the inverse training
    rate of GradNorm (Chen et al., ICML 2018); that OGM goes by it is ours, not in either paper.
    Losses of any scale compare, since each is measured by its own start. They must be above 0:
    from others nothing follows, and coefficients are 1.

    A modality that comes later starts when it comes. The start is saved with the balancer.
    """

    cost = "nothing: the losses are given"
    unusable = "infinite, or not above 0"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_first", torch.empty(0))
        self._proposed: Tensor | None = None

    log_first: Tensor

    def build(self, shapes: Shapes, seed: int) -> None:
        unknown = torch.full((len(self.names),), math.nan, dtype=shapes.dtype)
        self.log_first = unknown.to(shapes.device)

    def added(self, losses: Tensor, ignored: Tensor | None) -> Tensor:
        return functional.log_sum(losses, ignored)

    def judged(self, evidence: dict[str, Evidence]) -> dict[str, Evidence]:
        whole = evidence[""]
        if not whole.samples:  # a step without scores, whose evidence is not on the device
            self._proposed = None
            return evidence
        first = self.log_first.to(whole.log_scores)
        start = first.isnan() & whole.log_means.isfinite()
        self._proposed = torch.where(start, whole.log_means, first)
        fall = self._proposed - whole.log_means + whole.counts.log()
        sound = torch.where(fall.isfinite(), fall, math.nan)  # a loss of 0 would be infinitely far
        scores = torch.where(whole.counts > 0, sound, whole.log_scores)
        return {of: dataclasses.replace(each, log_scores=scores) for of, each in evidence.items()}

    def commit(self) -> None:
        if self._proposed is not None:
            self.log_first, self._proposed = self._proposed.to(self.log_first), None
