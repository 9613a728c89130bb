"""Coefficients on logits, learned so that their norms keep pace with each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.olm import adam, norm_slope, relative_pace
from equimodal.functional.precision import at_least_single
from equimodal.method import Capabilities, Method
from equimodal.methods.head_logits import head_logits
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step


class OLM(Method):
    r"""Online logit modulation (Zong et al., IJCAI 2024).

    .. math::
        L = \ell(w_0 f, y) + \sum_m \ell(w_m u_m, y), \qquad
        w \leftarrow \mathrm{Adam}\Big( \nabla_w L + \nabla_w \sum_k
        \Big| w_k \|u_k\| - r_k\, \overline{w \|u\|} \Big| \Big), \quad
        r_k = \frac{\ell_k / \ell_k^0}{\mathrm{mean}_j\, \ell_j / \ell_j^0}

    The classifiers of single modalities belong to the method, and :math:`u_0 = f` are the model's
    own logits. A prediction that learns slowly gets longer logits, by the rule of GradNorm on the
    norms. Through the first epoch the first loss is that of the step itself, so that r is 1; then
    it is that of the last step of that epoch.

    Prediction is the model's own. The equations are those of the released code.

    Args:
        rate: learning rate of the coefficients, 0 or more.

    Attributes:
        weights: the coefficients w, of the modalities in order, then of the model's own logits.

    Raises:
        SetupError: `rate` is out of its range.
    """

    name = "olm"
    source = "Zong et al., IJCAI 2024"
    replaces_joint = True
    modulates = False
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(self, rate: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= rate < math.inf:
            raise SetupError(f"OLM(rate): expected a number of 0 or more, found {rate}")
        self.rate = rate
        self.readouts = Readouts()
        for name in ("weights", "initial", "first", "second"):
            self.register_buffer(name, torch.empty(0))
        self._steps = 0
        self._measured: dict[str, Tensor] = {}
        self._proposed: dict[str, Tensor] = {}

    weights: Tensor
    initial: Tensor
    first: Tensor
    second: Tensor

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        size = len(self.names) + 1
        self.weights = torch.ones(size, dtype=shapes.dtype)
        self.initial = torch.ones(size, dtype=shapes.dtype)
        self.first = torch.zeros(size, dtype=shapes.dtype)
        self.second = torch.zeros(size, dtype=shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        alone: Mapping[str, Tensor] = self.readouts(step.features)
        logits = [*(alone[name] for name in self.names), head_logits(step)]
        names = [*self.names, None]
        terms = [
            step.loss(weight * of.to(weight.dtype), modality=name)
            for weight, of, name in zip(self.weights, logits, names, strict=True)
        ]
        self._measured = self._slopes(step, [of.detach() for of in logits], torch.stack(terms))
        *unimodal, joint = terms
        return {"joint": joint, **dict(zip(self.names, unimodal, strict=True))}

    def measure(self, step: Step) -> dict[str, Tensor]:
        return self._measured

    def coefficients(self, evidence: Evidence) -> None:
        """Propose the coefficients of the next step."""
        found = evidence.measured
        samples = found["samples"]
        gradient = (found["slopes"] / samples).to(self.weights)
        move, first, second = adam(gradient, self.first, self.second, self._steps + 1, self.rate)
        self._proposed = {"weights": self.weights + move, "first": first, "second": second}
        if "starting" in found:
            initial = (found["losses"] / samples).to(self.weights)
            self._proposed["initial"] = torch.where(initial > 0, initial, self.initial)

    def commit(self) -> None:
        for name, value in self._proposed.items():
            setattr(self, name, value)
        self._proposed = {}
        self._steps += 1

    def get_extra_state(self) -> int:
        return self._steps

    def set_extra_state(self, state: Any) -> None:
        self._steps = int(state)

    # ------------------------------------------------------------------

    def _slopes(self, step: Step, logits: list[Tensor], losses: Tensor) -> dict[str, Tensor]:
        """Return the derivative by the coefficients, and the losses, summed over the samples."""
        with torch.enable_grad():
            leaves = self.weights.clone().requires_grad_()
            again = [
                step.loss(leaf * of.to(leaf.dtype), modality=name)
                for leaf, of, name in zip(leaves, logits, [*self.names, None], strict=True)
            ]
            (of_losses,) = torch.autograd.grad(torch.stack(again).sum(), [leaves])
        rows = counted(step)
        if rows is not None:
            rows = torch.cat([rows, torch.ones_like(rows[:1])])
        norms = torch.stack([_rows(of).norm(dim=1) for of in logits])
        starting = step.epoch == 0
        losses = losses.detach()
        there = losses if rows is None else losses.where(rows.any(dim=1), math.nan)
        pace = relative_pace(there, losses if starting else self.initial.to(losses))
        of_norms = norm_slope(norms, self.weights.to(norms), pace.to(norms), rows)
        size = torch.as_tensor(float(step.size), device=norms.device, dtype=norms.dtype)
        measured = {
            "slopes": of_losses.to(norms) * size + of_norms,
            "losses": losses.to(norms) * size,
            "samples": size,
        }
        return {**measured, "starting": torch.ones_like(size)} if starting else measured


def _rows(logits: Tensor) -> Tensor:
    """Return what is given for each sample as a vector: a single number too."""
    return at_least_single(logits).reshape(len(logits), -1)
