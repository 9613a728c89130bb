"""Random states of torch, NumPy and Python: looked at, and put back."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
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
    put_back = noted(devices)
    try:
        yield
    finally:
        put_back()


def noted(devices: Iterable[torch.device]) -> Callable[[], None]:
    """Note random states, and return what puts them back.

    Args:
        devices: that a forward may draw on; the CPU is always among them.
    """
    numpy = sys.modules.get("numpy")
    python, drawn = random.getstate(), None if numpy is None else numpy.random.get_state()
    cpu = torch.get_rng_state()
    others = [(d, torch.cuda.get_rng_state(d)) for d in devices if d.type == "cuda"]

    def put_back() -> None:
        random.setstate(python)
        torch.set_rng_state(cpu)
        for device, state in others:
            torch.cuda.set_rng_state(state, device)
        if numpy is not None:
            numpy.random.set_state(drawn)

    return put_back
