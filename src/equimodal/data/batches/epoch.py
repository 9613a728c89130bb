"""Which epoch it is, for the workers of a loader too."""

from __future__ import annotations

from typing import Any

import torch


class Epoch:
    """The number of an epoch and a seed, in memory that a process shares with those it starts.

    Workers that outlive an epoch hold a copy of the data set from before it; this alone changes
    for them.
    """

    def __init__(self) -> None:
        self._numbers = _shared(torch.zeros(2, dtype=torch.int64))

    def set(self, epoch: int, seed: int | None = None) -> None:
        """Say which epoch it is, and from which seed it follows if that has changed."""
        self._numbers[0] = epoch
        if seed is not None:
            self._numbers[1] = seed

    @property
    def number(self) -> int:
        """Which epoch it is."""
        return int(self._numbers[0])

    @property
    def seed(self) -> int:
        """From which seed it follows."""
        return int(self._numbers[1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Share anew what was copied by anything but the start of a process."""
        self.__dict__.update(state)
        _shared(self._numbers)


def _shared(tensor: Any) -> Any:
    return tensor.share_memory_()
