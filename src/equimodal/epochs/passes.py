"""A pass over data with the model as it is, which trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.matching import Attachment
from equimodal.step import Step

Forward = Callable[[nn.Module, Any], tuple[Any, ...]]


def last_is_target(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Run the model on a batch that is a tuple of its inputs with the target last."""
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise SetupError(
            f"expected a batch (input, ..., target), found {type(batch).__name__}: give "
            "eq.Balancer(..., forward=lambda model, batch: (logits, target))"
        )
    *inputs, target = batch
    return model(*inputs), target


def run_forward(
    forward: Forward, model: nn.Module, batch: Any
) -> tuple[Any, Any, Mapping[str, Tensor] | None]:
    """Return logits, target, and which samples have a modality, where the user's forward says."""
    logits, target, *told = forward(model, batch)
    return logits, target, told[0] if told else None


def observed(
    attached: Attachment,
    forward: Forward,
    batches: Iterable[tuple[Any, Tensor | None]],
    epoch: int = 0,
    *,
    training: bool = False,
    graph: bool = False,
) -> Iterator[Step]:
    """Yield a step for every batch; the modes of the model's modules are as before afterwards.

    Args:
        attached: the model with hooks.
        forward: (model, batch) to (logits, target), or to (logits, target, present).
        batches: each with the positions of its samples in the data set, or None.
        epoch: counted from 0.
        training: yield steps with a graph and the model in its training mode; otherwise without
            gradients and in evaluation mode.
        graph: yield steps with a graph also in evaluation mode.
    """
    model = attached.model
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        for batch, indices in batches:
            with torch.set_grad_enabled(training or graph):
                yield attached.observe(partial(forward, model, batch), indices, epoch)
    finally:
        for module, mode in modes:
            module.training = mode
