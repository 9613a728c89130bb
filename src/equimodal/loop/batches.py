"""The batches of an epoch, in the order that a method gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import BatchSampler

from equimodal.epochs.redrive import of_batches
from equimodal.loop.parts import Parts
from equimodal.method import Order
from equimodal.system import ranks

_Dealt = TypeVar("_Dealt")


class Reordered:
    """The user's loader, driven in the order that a method gives for each epoch.

    Every rank takes its own part of the order. While a batch is out, the balancer knows which
    samples it holds and which modalities of them are kept. A data set that has `set_epoch`, because
    what it draws differs from epoch to epoch, is told which epoch it is.
    """

    def __init__(self, parts: Parts, loader: Any) -> None:
        self.parts = parts
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        parts = self.parts
        parts.driven = True
        if hasattr(self.loader.dataset, "set_epoch"):
            self.loader.dataset.set_epoch(parts.epoch)
        order = parts.methods.order(len(self.loader.dataset), parts.epoch)
        if order is None:
            yield from self.loader
            return
        group = parts.process_group
        rank, many = ranks.rank(group), ranks.world_size(group)
        sampler = self.loader.batch_sampler
        shares, start = [], 0
        for size in order.parts or [len(order.indices)]:
            # A rank with fewer batches than another would leave it waiting: some come twice.
            padded = range(size + -size % many)
            places = [start + place % size for place in padded][rank::many]
            drops = getattr(sampler, "drop_last", False)
            shares.append(list(BatchSampler(places, sampler.batch_size, drops)))
            start += size
        try:
            in_turn = dealt(shares) if order.dealt else list(itertools.chain(*shares))
            yield from self._batches(order, in_turn)
        finally:
            parts.batch = None

    def _batches(self, order: Order, batches: list[list[int]]) -> Iterator[Any]:
        """Yield batches of the samples at these places of the order."""
        indices = [[order.indices[place] for place in places] for places in batches]
        loader = of_batches(self.loader, indices)
        for batch, these, places in zip(loader, indices, batches, strict=True):
            kept = {name: flags[places] for name, flags in order.keep.items()}
            self.parts.batch = (torch.tensor(these), kept)
            yield batch


def dealt(parts: Sequence[Sequence[_Dealt]]) -> list[_Dealt]:
    """Return the batches of all parts in turn, each part evenly over the whole.

    >>> dealt([["a", "a"], ["b", "b", "b", "b"]])
    ['b', 'a', 'b', 'b', 'a', 'b']
    """
    keyed = [
        ((number + 0.5) / len(part), position, batch)
        for position, part in enumerate(parts)
        for number, batch in enumerate(part)
    ]
    return [batch for *_, batch in sorted(keyed, key=lambda each: each[:2])]
