"""Encoders that learn from unimodal losses alone, and a fusion that learns from the joint loss."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError, StepError
from equimodal.method import Method
from equimodal.search import Log, searched
from equimodal.step import Step
from equimodal.update.reach import hides

RECOMPUTED = (
    "the head is checkpointed, so that a backward pass recomputes it with its own parameters, and "
    "a method has run it with others: leave the head out of checkpointing"
)


class DGL(Method):
    r"""Disentangled gradient learning: the joint loss does not reach the encoders.

    .. math:: L = \ell(F(\mathrm{sg}[z_1], \dots, \mathrm{sg}[z_M]), y)
        + \alpha \sum_m \ell(F_{\mathrm{sg}}(0, \dots, z_m, \dots, 0), y)

    The head F learns from the joint loss on features without a graph. Each encoder learns from the
    loss of the head on its own feature, the others replaced by zeros, which does not train the head
    (Wei, Luo, Luo, ICCV 2025). One backward pass does both.

    Args:
        alpha: weight of the unimodal losses, above 0.

    Raises:
        SetupError: `alpha` is not above 0.
    """

    name = "dgl"
    search = searched(alpha=Log(1.0, 10.0))
    source = "Wei, Luo, Luo, ICCV 2025"
    replaces_joint = True

    def __init__(self, alpha: float = 4.0) -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise SetupError(f"DGL(alpha): expected a number above 0, found {alpha}")
        self.alpha = alpha

    def objective(self, step: Step) -> dict[str, Tensor]:
        fixed = {name: feature.detach() for name, feature in step.gated.items()}
        empty = {name: torch.zeros_like(feature) for name, feature in fixed.items()}
        constant = {n: p.detach() for n, p in step.boundary.named_parameters()}
        terms = {"joint": step.loss(run_head(step, fixed, {}))}
        for name in self.names:
            alone = {**empty, name: step.features[name]}
            logits = run_head(step, alone, constant)
            terms[name] = self.alpha * step.loss(logits, modality=name)
        return terms


def run_head(
    step: Step, features: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> Tensor:
    """Run the user's head in its own mode, with other parameters.

    The running statistics of its BatchNorm move with the user's own forward, and not with this one.

    Args:
        step: the micro-batch.
        features: what to run it on.
        parameters: by name, in place of the head's; those without an entry are the head's own.

    Returns:
        Logits, shaped as those of the step.

    Raises:
        StepError: the head is recomputed later, with its own parameters.
    """
    buffers = {name: buffer.clone() for name, buffer in step.boundary.named_buffers()}
    replaced = {f"boundary.{name}": value for name, value in {**buffers, **parameters}.items()}
    logits: Tensor = torch.func.functional_call(_Head(step), replaced, (features,))
    if hides(logits, [z.grad_fn for z in features.values()]):
        raise StepError(RECOMPUTED)
    return logits


class _Head(nn.Module):
    """The user's head as a function of features."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.boundary = step.boundary
        self.run = step.head

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.run(features)
