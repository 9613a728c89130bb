"""A loader for a trainer that draws batches itself, in the order that a method gives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from equimodal.balancer import Balancer
from equimodal.epochs.redrive import refuse_stream

Samples = tuple[Tensor, Mapping[str, Tensor]]  # as `Balancer.batch`


class Drawn:
    """Asks the balancer for the samples of every epoch, and remembers those of each batch.

    A trainer may draw a batch before it is done with the one before: which samples a batch holds
    is handed to the balancer when its turn has come. It has no length, because epochs may differ.

    Args:
        loader: the user's.
        balancer: returns the balancer at work.

    Raises:
        SetupError: the loader is a stream.
    """

    def __init__(self, loader: DataLoader[Any], balancer: Callable[[], Balancer]) -> None:
        refuse_stream(loader)
        self.loader = loader
        self.balancer = balancer
        self.waiting: deque[Samples | None] = deque()

    @property
    def sampler(self) -> Sampler[Any] | Any:
        """The loader's own, which a trainer tells the epoch."""
        return self.loader.sampler

    def __iter__(self) -> Iterator[Any]:
        balancer = self.balancer()
        self.waiting.clear()
        for batch in balancer.batches(self.loader):
            self.waiting.append(balancer.batch)
            yield batch

    def next(self) -> None:
        """Tell the balancer which samples the next batch holds."""
        if self.waiting:
            self.balancer().batch = self.waiting.popleft()
