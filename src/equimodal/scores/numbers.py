"""Random numbers in place of a head's own, and random states as they were."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LARGE = 2**22  # elements; parameters with more share numbers, or a large head would not fit twice


class Numbers:
    """Standard normal numbers, the same on every rank.

    Args:
        seed: of these numbers.
        positive: take their absolute values.
    """

    def __init__(self, seed: int, positive: bool) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.positive = positive
        self._pools: dict[Any, Tensor] = {}
        self._taken = 0

    def like(self, tensor: Tensor, dtype: torch.dtype, deviation: float = 1.0) -> Tensor:
        """Return random numbers in the shape of a tensor, and where it is."""
        size = tensor.numel()
        if size <= LARGE:
            return self._draw(size, dtype, deviation, tensor.device).view(tensor.shape)
        key = (dtype, deviation, tensor.device)
        if key not in self._pools or len(self._pools[key]) < size + LARGE:
            self._pools[key] = self._draw(size + LARGE, dtype, deviation, tensor.device)
        self._taken += 1
        start = 7919 * self._taken % LARGE
        return self._pools[key][start : start + size].view(tensor.shape)

    def _draw(
        self, size: int, dtype: torch.dtype, deviation: float, device: torch.device
    ) -> Tensor:
        drawn = torch.float32 if size > LARGE else torch.float64
        if dtype.is_complex:
            drawn = torch.complex128
        numbers = torch.randn(size, generator=self.generator, dtype=drawn) * deviation
        return (numbers.abs() if self.positive else numbers).to(dtype).to(device)


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
def restored_states(device: torch.device) -> Iterator[None]:
    """Put random states back at the end of a `with` block."""
    numpy = sys.modules.get("numpy")
    python, drawn = random.getstate(), None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(drawn)
