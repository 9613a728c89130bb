"""Unimodal losses whose gradients are balanced against that of the joint loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from equimodal.errors import SetupError, StepError, unknown
from equimodal.functional.mmpareto import restoring_factor
from equimodal.method import Capabilities, Method
from equimodal.methods.gradient.conflict import Conflict, MinNorm, products
from equimodal.methods.gradient.meeting import Combine, behind_joint, met
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step

PLACES = ("parameters", "features")
AT_FEATURES = Capabilities(accumulation="per micro-batch", compiled=False)


class MMPareto(Method):
    r"""Combine the gradients of joint and unimodal loss so that neither is worked against.

    .. math::
        h_m = 2 a_m g_m + 2 (1 - a_m) u_m, \qquad
        h_m \leftarrow \gamma \max\left(1, \frac{\|g_m + u_m\|}{\|h_m\|}\right) h_m

    g is the gradient of the joint loss on the encoder of modality m, u that of the loss of a linear
    classifier on its feature. Where they agree (cosine above 0), :math:`a = 1/2`; else a makes
    the combination shortest, which goes against neither. The norm is restored per parameter tensor
    (Wei and Hu, ICML 2024). The classifiers belong to the method.

    Args:
        gamma: factor on the gradients of the encoders, above 0.
        conflict: what becomes of gradients that disagree: `MinNorm()` (the paper, by default), or
            an aggregator of the library TorchJD, ``TorchJD("AlignedMTL")``.
        at: where gradients are compared and combined: "parameters" of each encoder (the paper), or
            "features", before they go on into the encoder: then g and u are gradients of the
            feature of the micro-batch, there is one norm, and no pass is added. What was added to
            the loss counts as part of g.

    Raises:
        SetupError: `gamma` is not above 0, or `conflict` or `at` is something else.
    """

    name = "mmpareto"
    search = searched(gamma=Log(1.0, 4.0))
    source = "Wei and Hu, ICML 2024"
    capabilities = Capabilities(backwards="M")

    def __init__(
        self,
        gamma: float = 1.5,
        *,
        conflict: Conflict | None = None,
        at: Literal["parameters", "features"] = "parameters",
    ) -> None:
        super().__init__()
        if not 0 < gamma < math.inf:
            raise SetupError(f"MMPareto(gamma): expected a number above 0, found {gamma}")
        if conflict is not None and not isinstance(conflict, Conflict):
            raise SetupError(
                f"MMPareto(conflict): expected eq.MinNorm() or eq.TorchJD(name), found {conflict!r}"
            )
        if at not in PLACES:
            raise SetupError("MMPareto(at): " + unknown("place", at, PLACES))
        if at == "features":
            self.capabilities = AT_FEATURES  # type: ignore[misc] # of this one
        self.gamma, self.at = gamma, at
        self.conflict = conflict or MinNorm()
        self.readouts = Readouts()
        self.register_buffer("drawn", torch.zeros((), dtype=torch.long))

    drawn: Tensor

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))

    def overrides(self, hook: str) -> bool:
        """Whether this method has a hook of its own; at features nothing waits for `combine`."""
        return super().overrides(hook) and not (hook == "combine" and self.at == "features")

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features if self.at == "parameters" else self._met(step))
        return {name: step.loss(logits[name], modality=name) for name in self.names}

    def _met(self, step: Step) -> dict[str, Tensor]:
        """Return features at which the gradient of the unimodal loss meets that of all else."""
        joint = behind_joint(step)

        def combined(name: str) -> Combine:
            return lambda whole, own: self._of_two(name, [whole], [own])[0]

        return {
            name: met(name, feature, combined(name), joint, type(self).__name__)
            for name, feature in step.features.items()
        }

    def combine(self, modality: str, gradients: Mapping[str, list[Tensor]]) -> list[Tensor] | None:
        if "joint" not in gradients or modality not in gradients:
            return None  # nothing to balance, as beside a method that does not train the head
        joint, unimodal = gradients["joint"], gradients[modality]
        if any(gradient.is_sparse for gradient in (*joint, *unimodal)):
            raise StepError(
                f"MMPareto compares whole gradients, and one of encoders['{modality}'] is sparse: "
                "make its module with sparse=False"
            )
        return self._of_two(modality, joint, unimodal)

    def _of_two(
        self, modality: str, joint: Sequence[Tensor], unimodal: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the combination of two gradients, tensor by tensor."""
        _, product, _ = products(joint, unimodal)
        solved = self.conflict(joint, unimodal, self._seed(modality))
        plain = torch._foreach_add(list(joint), list(unimodal))
        combined = [
            torch.where(product > 0, both, 2 * one) for both, one in zip(plain, solved, strict=True)
        ]
        norms = torch.stack(torch._foreach_norm(combined))
        factors = self.gamma * restoring_factor(norms, torch.stack(torch._foreach_norm(plain)))
        return [factor * one for factor, one in zip(factors, combined, strict=True)]

    def commit(self) -> None:
        self.drawn += 1

    def _seed(self, modality: str) -> int:
        """Return what random aggregators are seeded by; reading it waits for the device."""
        if isinstance(self.conflict, MinNorm):
            return 0
        return mix(self.seed, 2, int(self.drawn), self.names.index(modality))
