"""Inference by a method's own rule, as a module that needs no equimodal to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.loop.parts import Parts


class Predictor(nn.Module):
    """Predicts as `Balancer.predict` does; what `torch.export` traces."""

    def __init__(self, parts: Parts, predict: Callable[..., Any]) -> None:
        super().__init__()
        self.model = parts.attached.bare_model
        self.methods = nn.ModuleList(parts.methods.methods)
        self._predict = predict

    def forward(self, *inputs: Any) -> Tensor:
        """Return logits for one batch of inputs."""
        return self._predict(*inputs)  # type: ignore[no-any-return]


def exported(parts: Parts, predict: Callable[..., Any], inputs: tuple[Any, ...]) -> nn.Module:
    """Return a traced module of plain torch operations, for any batch size above 1.

    Args:
        parts: of the balancer, with the model in evaluation mode.
        predict: its prediction, from a batch of the model's inputs.
        inputs: one such batch, with at least 2 samples.

    Raises:
        SetupError: there is no batch to trace with.
    """
    if not inputs:
        raise SetupError(
            "export: this method predicts by a rule of its own, which is traced: pass one "
            "batch of the model's inputs, balancer.export(audio, visual)"
        )
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: batch} if isinstance(x, Tensor) and x.ndim else None for x in inputs)
    with torch.no_grad():
        predict(*inputs)  # what is found out at a first call cannot be traced
        program = torch.export.export(
            Predictor(parts, predict), inputs, dynamic_shapes={"inputs": dynamic}, strict=False
        )
    return program.module()
