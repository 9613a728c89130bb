"""Verdicts on what a device has computed, read when that costs no waiting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Late:
    """Hands numbers to a judge: at once on a CPU, elsewhere once they have arrived.

    What a step has noted is judged in the next one, whose loss then raises what the judge raises.

    Args:
        judge: takes the numbers that were noted.
    """

    def __init__(self, judge: Callable[[list[float]], None]) -> None:
        self.judge = judge
        self._waiting: list[tuple[Tensor, torch.Event]] = []

    def note(self, numbers: Tensor) -> None:
        """Have numbers judged, shape ``(N,)``."""
        if torch.compiler.is_compiling():
            return  # it would break the graph
        numbers = numbers.detach()
        if numbers.device.type == "cpu":
            self.judge(numbers.tolist())
            return
        self.settle()
        arrived = numbers.to(
            "cpu", non_blocking=True
        )  # in pinned memory, which torch takes care of
        event = torch.Event(numbers.device)
        event.record()
        self._waiting.append((arrived, event))

    def settle(self) -> None:
        """Judge what has arrived; the rest waits for a later step."""
        while self._waiting and self._waiting[0][1].query():
            self.judge(self._waiting.pop(0)[0].tolist())
