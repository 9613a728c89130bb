"""Inference by a method's own rule, as a module that needs no equimodal to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from equimodal.balancer import Balancer


class Predictor(nn.Module):
    """Predicts as `Balancer.predict` does; what `torch.export` traces."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self.model = balancer.attached.bare_model
        self.methods = nn.ModuleList(balancer.methods.methods)
        self._predict = balancer.predict

    def forward(self, *inputs: Any) -> Tensor:
        """Return logits for one batch of inputs."""
        return self._predict(*inputs)  # type: ignore[no-any-return]


def exported(balancer: Balancer, inputs: tuple[Any, ...]) -> nn.Module:
    """Return a traced module of plain torch operations, for any batch size above 1.

    Args:
        balancer: whose `predict` to trace, with the model in evaluation mode.
        inputs: one batch of the model's inputs, with at least 2 samples.
    """
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: batch} if isinstance(x, Tensor) and x.ndim else None for x in inputs)
    with torch.no_grad():
        balancer.predict(*inputs)  # what is found out at a first call cannot be traced
        program = torch.export.export(
            Predictor(balancer), inputs, dynamic_shapes={"inputs": dynamic}, strict=False
        )
    return program.module()
