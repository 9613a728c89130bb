"""Passes over a stream: each another epoch, or the rest of one that was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from equimodal.data.batches.sample import Sample
from equimodal.errors import SetupError
from equimodal.system import ranks

if TYPE_CHECKING:
    from equimodal.data.batches.stream import Stream


class Rest:
    """Which part of an epoch each worker reads, and how much of it was had before.

    In memory that workers share, as `Epoch` is.

    Args:
        workers: of the loader, at least 1.
    """

    def __init__(self, workers: int) -> None:
        numbers: Any = torch.zeros(workers, 2, dtype=torch.int64)
        self._numbers: Any = numbers.share_memory_()
        self.set(range(workers), [0] * workers)

    def set(self, parts: Any, had: Any) -> None:
        """Say for each worker which part it reads, and for each part the samples that were had."""
        for worker, part in enumerate(parts):
            self._numbers[worker, 0], self._numbers[worker, 1] = part, had[part]

    def of(self, worker: int) -> tuple[int, int]:
        """Return the part that a worker reads, and how many of its samples were had.

        A loader that nobody has told of reads all: its workers are not counted here.
        """
        if worker >= len(self._numbers):
            return worker, 0
        part, had = self._numbers[worker].tolist()
        return part, had


class Passes(DataLoader[Sample]):
    """Tells a stream that an epoch begins, or goes on, before workers see it.

    Args:
        stream: what is read.
        settings: of a DataLoader.
    """

    def __init__(self, stream: Stream, **settings: Any) -> None:
        super().__init__(stream, **settings)
        self._stream = stream
        self._rest = Rest(max(1, self.num_workers))
        self._behind = (0, 0)  # an epoch, and the batches of it that were had

    def go_on(self, epoch: int, batches: int) -> None:
        """Let the next pass be the rest of an epoch that was interrupted.

        It has the batches that were left, where ranks, workers and the size of batches are as
        before. The clips before them are read once more, but not decoded.

        Args:
            epoch: which.
            batches: that this rank had already.

        Raises:
            SetupError: an epoch has fewer.
        """
        if not 0 <= batches <= (many := len(self._turns())):
            raise SetupError(f"batches: expected 0 to {many} of an epoch, found {batches}")
        self._stream.set_epoch(epoch)
        self._behind = (epoch, batches)

    def __iter__(self) -> Any:
        (epoch, batches), self._behind = self._behind, (0, 0)
        self._stream.begin(self._rest)
        turns = self._turns()
        batches = batches if epoch == self._stream.epoch else 0
        # A loader begins with its first worker: that one takes over whose turn it is.
        workers = range(max(1, self.num_workers))
        parts = dict.fromkeys([*turns[batches:], *workers])
        had = [turns[:batches].count(part) * (self.batch_size or 1) for part in workers]
        self._rest.set(parts, had)
        return super().__iter__()

    def _turns(self) -> list[int]:
        """Return which part of an epoch each of its batches is of: one after the other, in turn."""
        workers, size = max(1, self.num_workers), self.batch_size or 1
        rank, world = ranks.rank(), ranks.world_size()
        lengths = [
            len(self._stream.stretch(rank * workers + part, world * workers))
            for part in range(workers)
        ]
        batches = [n // size if self.drop_last else -(-n // size) for n in lengths]
        return [
            part for turn in range(max(batches)) for part in range(workers) if turn < batches[part]
        ]
