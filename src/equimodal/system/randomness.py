"""Random states of torch, NumPy and Python: looked at, and put back."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def states(device: torch.device) -> list[Any]:
    """Return the random states that a forward may draw from: torch's, Python's and NumPy's."""
    numpy = sys.modules.get("numpy")
    found: list[Any] = [torch.get_rng_state(), random.getstate()]
    if device.type == "cuda":
        found.append(torch.cuda.get_rng_state(device))
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        found.append((kind, keys.tobytes(), *rest))
    return [state.tolist() if isinstance(state, Tensor) else state for state in found]


@contextlib.contextmanager
def restored_states(*devices: torch.device) -> Iterator[None]:
    """Put random states back at the end of a `with` block.

    Args:
        devices: those with a generator of their own are looked after too.
    """
    numpy = sys.modules.get("numpy")
    python, drawn = random.getstate(), None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng([d for d in devices if d.type == "cuda"]):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(drawn)
