"""Unimodal losses weighed by a rule on the losses alone."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.method import Method
from equimodal.methods.objective.counted import counted
from equimodal.methods.objective.loss_rules import LossRule, RunningMagnitude
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step


class LossWeighting(Method):
    r"""Add the losses of single modalities, weighed by what the losses themselves say.

    .. math:: L = L(f, y) + \sum_m w_m L(u_m, y), \quad u_m = W_m z_m + b_m

    The rules are those that trainers of audio-video models use, which know losses and no logits;
    here they stand in the comparison with methods that know more. The weights of a step follow from
    the steps before it.

    Args:
        rule: `RunningMagnitude()` by default, `InverseFrequency()`, `Uncertainty()`, or a
            `LossRule` of your own.

    Raises:
        SetupError: `rule` is something else.
    """

    name = "loss-weighting"
    source = "rules of audio-video trainers; Kendall et al., CVPR 2018"
    modulates = False

    def __init__(self, rule: LossRule | None = None) -> None:
        super().__init__()
        if rule is not None and not isinstance(rule, LossRule):
            raise SetupError(
                "LossWeighting(rule): expected eq.RunningMagnitude(), eq.InverseFrequency() or "
                f"eq.Uncertainty(), found {rule!r}"
            )
        self.rule = rule or RunningMagnitude()
        self.readouts = Readouts()
        self._measured: dict[str, Tensor] = {}
        self._proposed: tuple[Tensor, Tensor, Tensor] | None = None

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        self.rule.start(self.names, torch.zeros((), dtype=shapes.dtype, device=shapes.device))

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        losses = torch.stack([step.loss(logits[name], modality=name) for name in self.names])
        rows = counted(step)
        size = torch.full_like(losses.detach(), step.size)
        self._measured = {
            "losses": losses.detach() * step.size,
            "counts": size if rows is None else rows.sum(dim=1).to(size),
            "samples": size[0],
        }
        return {"unimodal": self.rule.term(losses)}

    def measure(self, step: Step) -> dict[str, Tensor]:
        return self._measured

    def coefficients(self, evidence: Evidence) -> None:
        """Take note of the losses of this step."""
        found = evidence.measured
        means = found["losses"] / found["counts"].clamp(min=1)
        self._proposed = means, found["counts"], found["samples"]

    def commit(self) -> None:
        if self._proposed is not None:
            self.rule.observe(*self._proposed)
            self._proposed = None
