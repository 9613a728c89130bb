"""A backward pass of the user's loss, and the gradients of single terms beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from equimodal.composing.refusals import refuse_accumulation
from equimodal.errors import StepError
from equimodal.loop.again import begin
from equimodal.loop.handout import Pending
from equimodal.loop.parts import Parts
from equimodal.update.reach import Reached, reached


def backpropagated(
    parts: Parts, loss: Tensor, records: Sequence[Pending], using: Callable[[Tensor], None] | None
) -> Reached | None:
    """Backpropagate a loss; return what it leads to, where a method freezes by that.

    Args:
        parts: of the balancer.
        loss: shape ``()``, scaled by the user or not.
        records: what belongs to the losses that it was computed from.
        using: how to backpropagate; ``loss.backward()`` where None.

    Raises:
        StepError: it is one micro-batch too many.
    """
    micro_batches = parts.ledger.evidence.micro_batches + len(records)
    if parts.micro_batches is not None and micro_batches > parts.micro_batches:
        raise StepError(
            f"eq.Balancer(micro_batches={parts.micro_batches}), but loss number {micro_batches} of "
            "one optimizer step was backpropagated: leave micro_batches out to accumulate any "
            "number, or call balancer.modulate() and optimizer.step() in between"
        )
    if micro_batches > 1:
        refuse_accumulation(parts.acting())
    repeating = parts.repeating()
    if repeating is not None and not parts.running:
        raise StepError(
            f"balancer.backward: {type(repeating).__name__} runs the batches of a step again on "
            "other weights: write for _ in balancer.passes(): around the lines from the forward "
            "to balancer.backward(loss), and balancer.modulate() after that loop"
        )
    begin(parts)
    leads = None
    if any(method.overrides("frozen") for method in parts.acting()):
        zeros = [record.zero.grad_fn for record in records if record.zero is not None]
        leads = reached(loss, zeros)
    parts.own.before_backward()
    separated = contextlib.nullcontext() if parts.trunk is None else parts.trunk.backward()
    try:
        with separated:
            _backpropagate(parts, loss, records, using or Tensor.backward)
    except CheckpointError as error:
        raise StepError(
            "checkpointing recomputed something else than the forward had computed. Of the head, a "
            "method may have run it with other parameters (DGL, MCR) or features: leave the head "
            f"out of checkpointing. torch says: {error}"
        ) from error
    return leads


def _backpropagate(
    parts: Parts, loss: Tensor, records: Sequence[Pending], using: Callable[[Tensor], None]
) -> None:
    if parts.separation is not None and parts.running < 2:
        terms = [record.terms for record in records]
        parts.separation.backward(loss, terms, using)
    else:
        using(loss)
