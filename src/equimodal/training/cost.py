"""What a training costs, counted and not timed: in plain trainings of the same model and data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

GOLDEN = (math.sqrt(5) - 1) / 2


class Spent:
    """Counts the floating-point operations of a training while it runs.

    One step of every epoch stands for the epoch, since counting takes time: another place of it in
    each, so that what happens in every n-th step has its share. The first step of all, in which
    methods look at the model, stands for itself. Of what methods do between epochs all is counted.
    The numbers of a training are not changed. In a loop::

        spent = Spent()
        for epoch in range(epochs):
            for batch in balancer.batches(loader):
                with spent.step():
                    ...  # forward, loss, backward, modulate, optimizer
            with spent.between():
                balancer.end_epoch()
            spent.end_epoch()

    What is outside of the two blocks does not count: evaluate there. Operations are counted as
    torch does: a product and a sum are two, and only products of matrices, convolutions and
    attention count.

    Attributes:
        epochs: that have ended.
    """

    def __init__(self) -> None:
        self.epochs = 0
        self._ended = 0.0  # operations of epochs that have ended, and of what was added
        self._steps, self._first, self._between = 0, 0.0, 0.0  # in this epoch
        self._step: float | None = None  # operations of the step that was counted in it
        self._place, self._before = 1, 0.0  # which is counted; a step of the epoch before

    @property
    def operations(self) -> float:
        """Floating-point operations of all epochs that have ended, and of what was added."""
        return self._ended

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Around a training step; of micro-batches, around each."""
        number, self._steps = self._steps, self._steps + 1
        first = self.epochs == number == 0
        if number != self._place and not first:
            yield
            return
        counter = _Operations()
        with counter:
            yield
        if first:
            self._first = counter.total
        else:
            self._step = counter.total

    @contextlib.contextmanager
    def between(self) -> Iterator[None]:
        """Around what is done once: passes over data, copies that are trained, teachers."""
        counter = _Operations()
        with counter:
            yield
        self._between += counter.total

    def add(self, operations: float) -> None:
        """Add what was counted elsewhere, such as the training of teachers."""
        self._ended += operations

    def end_epoch(self) -> None:
        """End an epoch."""
        once = int(self._steps > 0 and not self.epochs)
        step = (self._first if once else self._before) if self._step is None else self._step
        self._ended += self._first * once + step * (self._steps - once) + self._between
        self.epochs += 1
        # Neither the first one, in which a resumed training may look at the model again, nor the
        # last one, which is of fewer samples.
        share = self.epochs * GOLDEN % 1
        self._place = max(0, min(1, self._steps - 1)) + int(share * max(0, self._steps - 2))
        self._before, self._step, self._steps = step, None, 0
        self._first = self._between = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to go on counting; between epochs."""
        return {
            "epochs": self.epochs,
            "operations": self._ended,
            "place": self._place,
            "step": self._before,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epochs, self._ended = state["epochs"], state["operations"]
        self._place, self._before = state["place"], state["step"]
        self._steps, self._first, self._between, self._step = 0, 0.0, 0.0, None


def relative(operations: Sequence[float | None], joint: Sequence[float | None]) -> float | None:
    """Return what a training costs, in plain joint trainings; None where nothing was counted.

    Args:
        operations: of trainings of one row, None for one of which they are not known.
        joint: of joint trainings of the same model and data, for as many epochs.

    >>> relative([3e9, 5e9], [2e9, None]), relative([None], [2e9])
    (2.0, None)
    """
    ours = [each for each in operations if each is not None]
    plain = [each for each in joint if each]
    return fmean(ours) / fmean(plain) if ours and plain else None


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts as `torch.utils.flop_counter` does, without what that notes about modules."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(getattr(func, "_overloadpacket", func))
        if count is not None:
            self.total += count(*args, **kwargs, out_val=out)
        return out
