"""The encoder that learns easily is to find weights around which the loss is low as well."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from equimodal.errors import SetupError, StepError
from equimodal.evidence import Evidence
from equimodal.functional.masam import alignment, along, displacement, progress
from equimodal.method import REST, Capabilities, Method
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Linear, Log, searched
from equimodal.step import Shapes, Step


class MASAM(Method):
    r"""Modality-adaptive sharpness-aware minimisation (ICLR 2026).

    .. math::
        q_m = \omega\, \delta_m + (1 - \omega)\, s_m, \qquad
        \theta_{m^*} \leftarrow \theta_{m^*} + \epsilon
        \text{ with } m^* = \mathrm{arg\,max}_m\, q_m

    Linear classifiers of the single modalities, which belong to the method, are trained beside the
    model. :math:`\delta_m` is how far the running mean of a modality's own loss lies below its
    loss one step ago, :math:`s_m` the agreement of its gradient with the joint one. Only the
    encoder that leads is moved, by :math:`\rho` along the part of its own gradient that lies along
    the joint one (`equimodal.functional.displacement`), and the batches run again: all encoders
    are trained on the gradients found there, all else on those of the first pass. Then it is moved
    back.

    The loop runs every batch twice, ``for _ in balancer.passes()``. The equations are those of the
    released code.

    Args:
        radius: :math:`\rho`, above 0.
        weight: :math:`\omega`, of the decrease against the agreement, from 0 to 1.
        momentum: of the running means of the losses, from 0 to below 1.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "masam"
    search = searched(radius=Log(0.03, 1.0), weight=Linear(0.0, 1.0))
    source = "MASAM, ICLR 2026"
    modulates = False
    capabilities = Capabilities(forwards="1", backwards="M + 1")

    def __init__(self, radius: float = 0.3, *, weight: float = 0.8, momentum: float = 0.91) -> None:
        super().__init__()
        if not 0 < radius < math.inf:
            raise SetupError(f"MASAM(radius): expected a number above 0, found {radius}")
        if not 0 <= weight <= 1:
            raise SetupError(f"MASAM(weight): expected a number from 0 to 1, found {weight}")
        if not 0 <= momentum < 1:
            raise SetupError(
                f"MASAM(momentum): expected a number from 0 to below 1, found {momentum}"
            )
        self.radius, self.weight, self.momentum = radius, weight, momentum
        self.readouts = Readouts()
        for name in ("last", "average"):
            self.register_buffer(name, torch.empty(0))
        self._losses = torch.empty(0)  # of the micro-batch
        self._found: dict[str, tuple[list[Tensor], Tensor]] = {}  # direction and agreement
        self._proposed: dict[str, Tensor] = {}

    last: Tensor
    average: Tensor

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        self.last = torch.full((len(self.names),), math.nan, dtype=shapes.dtype)
        self.average = self.last.clone()

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        terms = {name: step.loss(logits[name], modality=name) for name in self.names}
        self._losses = torch.stack(list(terms.values())).detach()
        return terms

    def measure(self, step: Step) -> dict[str, Tensor]:
        there = counted(step)
        size = torch.full_like(self._losses, step.size)
        return {
            "losses": self._losses * step.size,
            "samples": size if there is None else there.sum(1),
        }

    def combine(self, modality: str, gradients: Mapping[str, list[Tensor]]) -> None:
        """Take note of where the encoder would be moved; its gradient stays as it is."""
        if "joint" not in gradients or modality not in gradients:
            return
        joint, own = gradients["joint"], gradients[modality]
        if any(gradient.is_sparse for gradient in (*joint, *own)):
            raise StepError(
                f"MASAM compares whole gradients, and one of encoders['{modality}'] is sparse: "
                "make its module with sparse=False"
            )
        self._found[modality] = along(own, joint), alignment(own, joint)

    def perturb(
        self, gradients: Mapping[str, list[Tensor]], evidence: Evidence
    ) -> dict[str, list[Tensor]]:
        found, self._found = self._found, {}
        measured = evidence.measured
        losses = (measured["losses"] / measured["samples"]).to(self.last)  # NaN of no samples
        decrease, average = progress(losses, self.last, self.average, self.momentum)
        last = torch.where(losses.isnan(), self.last, losses)
        self._proposed = {"last": last, "average": average}
        names = [name for name in self.names if name in found and gradients[name]]
        if not names:
            return {}
        agreement = torch.stack([found[name][1] for name in names]).to(decrease)
        at = [self.names.index(name) for name in names]
        score = self.weight * decrease[at] + (1 - self.weight) * agreement
        score = score.where(~losses[at].isnan(), -math.inf)
        leads = score == score.max()  # not its position, which the host would wait for
        return {
            name: [torch.where(first, move, 0.0) for move in moves]
            for name, first, moves in zip(
                names,
                leads.unbind(),
                (displacement(found[n][0], self.radius, found[n][1]) for n in names),
                strict=True,
            )
        }

    def merge(self, part: str, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        return first if part == REST else second

    def commit(self) -> None:
        for name, value in self._proposed.items():
            setattr(self, name, value)
        self._proposed = {}
