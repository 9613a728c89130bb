"""Frozen encoders leave no graph, and only a graph tells which input of the head is theirs."""

from __future__ import annotations

from typing import Any

import torch

from equimodal.attach.features import replaced, tensors


def traced(output: Any) -> Any:
    """Return what an encoder returned, with a graph that begins here where it had none.

    The values are the same, and nothing of the encoder gets a gradient. Also within
    `torch.no_grad`, as far as no other operation follows there.

    Args:
        output: a tensor, or nested containers of some.
    """
    for path, tensor in tensors(output):
        if tensor.requires_grad or not tensor.is_floating_point() or tensor.is_inference():
            continue
        with torch.enable_grad():  # and no leaf, which could not be changed in place
            output = replaced(output, path, tensor.detach().requires_grad_().clone())
    return output
