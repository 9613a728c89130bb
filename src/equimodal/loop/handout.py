"""Losses that were handed out to the user's loop, and found again when they come back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equimodal.attach.graph import depends_on, mark, marked
from equimodal.errors import StepError
from equimodal.evidence import Measured, Scored


@dataclass(frozen=True)
class Pending:
    """What belongs to a loss: its terms, and the evidence it adds once it is backpropagated.

    `zero` is a part of it that is there for a reducer alone, and trains nothing; `lacking` are the
    modalities that the micro-batch has no sample of, None where it came with logits.
    """

    terms: dict[str, Tensor]
    scores: Scored | None
    measured: dict[str, Measured]
    zero: Tensor | None = None
    lacking: frozenset[str] | None = None


class Handout:
    """Knows what belongs to a loss, also after the user has scaled it or added to it.

    A record lies on the graph of the loss. A compiled loss has no graph to leave it on: the latest
    one is remembered, until it has come back.
    """

    def __init__(self) -> None:
        self._key = object()
        self._compiled: list[tuple[Tensor, Pending]] = []
        self.waiting = False  # whether none has come back since one was handed out

    def give(self, loss: Tensor, pending: Pending) -> Tensor:
        """Hand out a loss."""
        self.waiting = True
        if torch.compiler.is_compiling():
            self._compiled = [(loss, pending)]
        else:
            mark(loss, self._key, pending)
        return loss

    def back(self, loss: Tensor) -> list[Pending]:
        """Return what belongs to the losses that this one was computed from.

        Raises:
            StepError: it was computed from none.
        """
        records: list[Pending] = marked(loss, self._key) if isinstance(loss, Tensor) else []
        if not records and isinstance(loss, Tensor):
            records = [pending for known, pending in self._compiled if depends_on(loss, known)]
        if not records:
            raise StepError(
                "balancer.backward: this loss was not computed from what balancer.loss returned "
                "with gradients enabled: write loss = balancer.loss(logits, target). Of compiled "
                "losses only the latest is known: backpropagate each before the next"
            )
        self._compiled, self.waiting = [], False
        return records
