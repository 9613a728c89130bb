"""Conditions that are seen without waiting for the device: there, one look later."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equimodal.errors import StepError


class Late:
    """Refuses what a flag tells: at once on the host; on a device when it is next looked at.

    Reading a number from a device makes the host wait for all that was queued before it. A copy
    that was begun a step ago is there by the time of the next one.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, torch.cuda.Event | None, Callable[[], str]]] = []

    def refuse_if(self, flag: Tensor, message: Callable[[], str]) -> None:
        """Refuse, now or at the next `look`.

        Args:
            flag: shape ``()``, bool.
            message: says what was wrong, and what to do.

        Raises:
            StepError: it is so, and the flag is on the host.
        """
        if flag.device.type == "cpu":
            if bool(flag):
                raise StepError(message())
            return
        event = None
        if flag.device.type == "cuda":
            copy = torch.empty((), dtype=torch.bool, pin_memory=True)
            copy.copy_(flag, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            flag = copy
        self._waiting.append((flag, event, message))

    def look(self) -> None:
        """Look at the flags of earlier steps.

        Raises:
            StepError: one of them was set.
        """
        waiting, self._waiting = self._waiting, []
        for flag, event, message in waiting:
            if event is not None:
                event.synchronize()
            if bool(flag):
                raise StepError(f"in the step before: {message()}")
