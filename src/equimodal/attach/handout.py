"""Losses that were handed out to the user's loop, and found again when they come back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equimodal.attach.graph import depends_on, mark, marked
from equimodal.evidence import Measured, Scored


@dataclass(frozen=True)
class Pending:
    """What belongs to a loss: its terms, and the evidence it adds once it is backpropagated."""

    terms: dict[str, Tensor]
    scores: Scored | None
    measured: dict[str, Measured]


class Handout:
    """Knows what belongs to a loss, also after the user has scaled it or added to it.

    A record lies on the graph of the loss. A compiled loss has no graph to leave it on: the latest
    one is remembered, until it has come back.
    """

    def __init__(self) -> None:
        self._key = object()
        self._compiled: list[tuple[Tensor, Pending]] = []
        self.waiting = False  # whether none has come back since one was handed out

    def note(self, loss: Tensor, pending: Pending) -> None:
        """Hand out a loss."""
        self.waiting = True
        if torch.compiler.is_compiling():
            self._compiled = [(loss, pending)]
        else:
            mark(loss, self._key, pending)

    def behind(self, loss: Tensor) -> list[Pending]:
        """Return what belongs to the losses that this one was computed from."""
        if not isinstance(loss, Tensor):
            return []
        records: list[Pending] = marked(loss, self._key)
        if not records:
            records = [pending for known, pending in self._compiled if depends_on(loss, known)]
        if records:
            self._compiled, self.waiting = [], False
        return records
