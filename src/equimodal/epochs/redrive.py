"""Drive the user's own data loader in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from equimodal import ranks
from equimodal.errors import SetupError

if TYPE_CHECKING:
    from equimodal.balancer import Balancer


def refuse_stream(loader: object) -> None:
    """Refuse a loader that cannot be driven in another order.

    Raises:
        SetupError: it is no DataLoader over a data set with a length and an index.
    """
    problem = None
    if not isinstance(loader, DataLoader):
        problem = f"it is a {type(loader).__name__}, not a torch.utils.data.DataLoader"
    elif isinstance(loader.dataset, IterableDataset):
        problem = f"its data set {type(loader.dataset).__name__} is a stream without an index"
    elif loader.batch_sampler is None:
        problem = "it does not batch (batch_size=None)"
    elif not hasattr(loader.batch_sampler, "batch_size"):
        kind = type(loader.batch_sampler).__name__
        problem = f"its batch sampler {kind} does not say a batch size"
    if problem is not None:
        raise SetupError(
            f"this loader cannot be driven in the method's order: {problem}. Pass a DataLoader "
            "over a map-style data set"
        )


def redriven(loader: DataLoader[Any], indices: Sequence[int]) -> DataLoader[Any]:
    """Return a loader of these samples in this order.

    It has the data set, workers, collate function, batch size and pinning of the user's; only the
    sampler is exchanged.
    """
    sampler: Any = loader.batch_sampler
    batches = BatchSampler(list(indices), sampler.batch_size, getattr(sampler, "drop_last", False))
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = {
            "prefetch_factor": loader.prefetch_factor,
            "multiprocessing_context": loader.multiprocessing_context,
        }
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
        **workers,
    )


def pieces(indices: Sequence[int], loader: DataLoader[Any]) -> Iterator[slice]:
    """Yield for each batch of a redriven loader which part of the indices it holds."""
    size: int = loader.batch_sampler.batch_size  # type: ignore[union-attr]
    for start in range(0, len(indices), size):
        yield slice(start, min(start + size, len(indices)))


class Reordered:
    """The user's loader, driven in the order that a method gives for each epoch.

    Every rank takes its own part of the order. While a batch is out, the balancer knows which
    samples it holds and which modalities of them are kept.
    """

    def __init__(self, balancer: Balancer, loader: Any) -> None:
        self.balancer = balancer
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        balancer = self.balancer
        balancer.driven = True
        order = balancer.methods.order(len(self.loader.dataset), balancer.epoch)
        if order is None:
            yield from self.loader
            return
        rank = slice(
            ranks.rank(balancer.process_group), None, ranks.world_size(balancer.process_group)
        )
        indices = list(order.indices)[rank]
        keep = {name: kept[rank] for name, kept in order.keep.items()}
        loader = redriven(self.loader, indices)
        try:
            for batch, part in zip(loader, pieces(indices, loader), strict=False):
                kept = {name: flags[part] for name, flags in keep.items()}
                balancer.batch = (torch.tensor(indices[part]), kept)
                yield batch
        finally:
            balancer.batch = None
