"""A forward with a graph, for what only a graph tells, before any step of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from equimodal.attach.misfits import bare
from equimodal.errors import MatchError
from equimodal.scores import evaluation
from equimodal.scores.numbers import restored_states


@contextlib.contextmanager
def with_a_graph(model: nn.Module) -> Iterator[None]:
    """Run what is within with gradients, in evaluation mode, and leave nothing behind.

    Raises:
        MatchError: the inputs were made in inference mode, and carry none.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluation(model),
        restored_states(device),
        torch.compiler.set_stance("force_eager"),
        _without_wrapper(model),
    ):
        try:
            yield
        except RuntimeError as error:
            if "nference tensors" not in str(error):
                raise
            raise MatchError(
                "which input of the head is which modality shows in a forward with gradients, "
                "and these inputs were made under torch.inference_mode(): call "
                "balancer.check(batch) or balancer.loss before, or give features="
            ) from error


@contextlib.contextmanager
def _without_wrapper(model: nn.Module) -> Iterator[None]:
    """Keep DDP out of a forward that no backward pass follows: it would wait for one."""
    within = bare(model)
    if model is within:
        yield
        return
    before = model.__dict__.get("forward", within)
    model.__dict__["forward"] = within
    try:
        yield
    finally:
        if before is within:
            del model.__dict__["forward"]
        else:
            model.__dict__["forward"] = before
