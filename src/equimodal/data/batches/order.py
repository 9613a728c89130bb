"""The order of an epoch's samples on each rank, from the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from equimodal.errors import SetupError
from equimodal.noise import mix
from equimodal.system import ranks


class Order(Sampler[int]):
    """Goes through the samples of a data set, each rank through its own part.

    The k-th batches of all ranks together hold the samples of the k-th batch of one process whose
    batches are as large as all of theirs. Shuffled, every rank has equally many samples: the few
    that remain, others in each epoch, are left out. In their own order every sample comes once,
    and ranks may differ by one.

    Every pass is the epoch after that of the pass before, unless `set_epoch` or `go_on` said
    otherwise. A data set that has `set_epoch(epoch, seed)` is told when a pass begins.

    Args:
        samples: the data set.
        seed: from which the orders of all epochs follow.
        shuffle: in another order every epoch, instead of as they are.
        rank: of this process; that of `torch.distributed`, when a pass begins, if left out.
        world: how many ranks there are; as `rank`.

    Raises:
        SetupError: the rank is not one of the world.

    >>> order = Order(range(5), shuffle=True, rank=0, world=2)
    >>> first, second = list(order), list(order)
    >>> order.set_epoch(0)
    >>> list(order) == first, len(first)
    (True, 2)
    >>> list(Order(range(5), rank=1, world=2))
    [1, 3]
    """

    def __init__(
        self,
        samples: Sized,
        seed: int = 0,
        *,
        shuffle: bool = False,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        if (rank is None) != (world is None) or not 0 <= (rank or 0) < (world or 1):
            raise SetupError(f"rank: expected one of a world, found rank {rank} of {world}")
        self.samples = samples
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self._place = rank, world
        self._done = 0

    @property
    def place(self) -> tuple[int, int]:
        """The rank, and how many there are."""
        rank, world = self._place
        if rank is None or world is None:
            return ranks.rank(), ranks.world_size()
        return rank, world

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next pass is; training engines do."""
        if epoch != self.epoch:
            self._done = 0
        self.epoch = epoch

    def go_on(self, epoch: int, samples: int) -> None:
        """Let the next pass be the rest of an epoch that was interrupted.

        Args:
            epoch: which.
            samples: that this rank had already: batches times their size.

        Raises:
            SetupError: an epoch has fewer.
        """
        if not 0 <= samples <= len(self):
            raise SetupError(f"samples: expected 0 to {len(self)} of an epoch, found {samples}")
        self.epoch = epoch
        self._done = samples

    def __iter__(self) -> Iterator[int]:
        epoch, done = self.epoch, self._done
        self.epoch, self._done = epoch + 1, 0
        if hasattr(self.samples, "set_epoch"):
            self.samples.set_epoch(epoch, self.seed)
        rank, world = self.place
        whole = torch.arange(len(self.samples))
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix(self.seed, epoch))
            whole = torch.randperm(len(whole), generator=generator)
        yield from whole[rank::world][: len(self)][done:].tolist()

    def __len__(self) -> int:
        """How many samples of a whole epoch this rank has."""
        rank, world = self.place
        size = len(self.samples)
        return size // world if self.shuffle else len(range(rank, size, world))
