"""A criterion that is read once more, and must not notice."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def untouched(loss: Callable[..., Any], outputs: Any) -> Iterator[None]:
    """Leave the state of a criterion as it is, and the random state with it, within a block.

    Running means of a loss, counters and weights that follow its calls belong to the calls of the
    user's loop. Buffers are stood in for by copies, as the graph of an earlier call may hold them.

    Args:
        loss: the user's criterion.
        outputs: what it is read on, whose device draws random numbers.
    """
    if torch.compiler.is_compiling():
        yield
        return
    devices = [outputs.device] if isinstance(outputs, Tensor) and outputs.is_cuda else []
    kept = [(each, dict(vars(each))) for each in _holders(loss)]
    buffers = [(each, dict(each._buffers)) for each, _ in kept if isinstance(each, nn.Module)]
    for module, of in buffers:
        copies = {name: None if b is None else b.clone() for name, b in of.items()}
        module._buffers.update(copies)
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module, of in buffers:
            module._buffers.clear()
            module._buffers.update(of)
        for each, attributes in kept:
            vars(each).clear()
            vars(each).update(attributes)


def _holders(loss: Any) -> list[Any]:
    """Return the objects that a criterion may keep something in."""
    if isinstance(loss, functools.partial):
        loss = loss.func
    loss = getattr(loss, "__self__", loss)
    if isinstance(loss, nn.Module):
        return list(loss.modules())
    return [loss] if hasattr(loss, "__dict__") and not isinstance(loss, type) else []
