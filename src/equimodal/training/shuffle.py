"""The order of an epoch's samples, from the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from equimodal.update.noise import mix


class EpochShuffle(Sampler[int]):
    """Shuffles anew every epoch, and alike in every run: a resumed one goes on in the same order.

    Args:
        samples: what to shuffle.
        seed: from which the orders of all epochs follow.
    """

    def __init__(self, samples: Sized, seed: int) -> None:
        self.samples = samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the training engine does."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        yield from torch.randperm(len(self.samples), generator=generator).tolist()

    def __len__(self) -> int:
        return len(self.samples)
