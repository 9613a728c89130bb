"""Evidence from how far the losses that the user hands over have fallen."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from equimodal import functional
from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.scores.given import Given
from equimodal.step import Shapes


class LossFall(Given):
    r"""Evidence from the fall of each loss since its start: no temperature to choose.

    .. math:: s_m = \frac{L_{m,0}}{L_{m,t}}

    L is the mean of ``balancer.loss(losses={...})`` over all samples of an optimizer step that have
    the modality, over micro-batches and ranks. :math:`L_{m,t} / L_{m,0}` is the inverse training
    rate of GradNorm (Chen et al., ICML 2018); that OGM goes by it is ours, not in either paper.
    Losses of any scale compare, since each is measured by its own start. They must be above 0:
    from others nothing follows, and coefficients are 1.

    A modality that comes later starts when it comes. The start is saved with the balancer.

    Args:
        steps: over how many optimizer steps that had the modality its start :math:`L_{m,0}` is the
            mean, 1 or more. A single first step is noise where losses depend on what is drawn.
            Until there are as many it is the mean of those so far, this step's among them.

    Raises:
        SetupError: steps is below 1.
    """

    cost = "nothing: the losses are given"
    unusable = "infinite, or not above 0"

    def __init__(self, steps: int = 1) -> None:
        super().__init__()
        if steps < 1:
            raise SetupError(f"LossFall(steps): expected 1 or more optimizer steps, found {steps}")
        self.steps = steps
        self.register_buffer("log_first", torch.empty(0))
        if steps > 1:  # of one step the start itself says whether it was taken
            self.register_buffer("taken", torch.empty(0))
        self._proposed: tuple[Tensor, Tensor] | None = None

    log_first: Tensor
    taken: Tensor

    def build(self, shapes: Shapes, seed: int) -> None:
        unknown = torch.full((len(self.names),), math.nan, dtype=shapes.dtype)
        self.log_first = unknown.to(shapes.device)
        if self.steps > 1:
            self.taken = torch.zeros_like(self.log_first)

    def added(self, losses: Tensor, ignored: Tensor | None) -> Tensor:
        return functional.log_sum(losses, ignored)

    def judged(self, evidence: dict[str, Evidence]) -> dict[str, Evidence]:
        whole = evidence[""]
        if not whole.samples:  # a step without scores, whose evidence is not on the device
            self._proposed = None
            return evidence
        first, now = self.log_first.to(whole.log_scores), whole.log_means
        taken = self.taken.to(first) if self.steps > 1 else (~first.isnan()).to(first)
        taking = now.isfinite() & (taken < self.steps)
        so_far = torch.where(taken > 0, first + taken.log(), -math.inf)
        mean = torch.logaddexp(so_far, now) - (taken + 1).log()
        start = torch.where(taking, mean, first)
        self._proposed = start, taken + taking
        fall = start - now + whole.counts.log()
        sound = torch.where(fall.isfinite(), fall, math.nan)  # a loss of 0 would be infinitely far
        scores = torch.where(whole.counts > 0, sound, whole.log_scores)
        return {of: dataclasses.replace(each, log_scores=scores) for of, each in evidence.items()}

    def commit(self) -> None:
        if self._proposed is None:
            return
        (start, taken), self._proposed = self._proposed, None
        self.log_first = start.to(self.log_first)
        if self.steps > 1:
            self.taken = taken.to(self.taken)
