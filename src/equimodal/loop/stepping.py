"""Around `optimizer.step`: the update is scaled where asked, and what was proposed is kept."""

from __future__ import annotations

from typing import Any

from equimodal.errors import StepError
from equimodal.loop.parts import Parts
from equimodal.update.optimizers import Optimizer, held, trained
from equimodal.update.scaling import refuse_untold


def before_step(parts: Parts, optimizer: Optimizer) -> None:
    """Remember the parameters whose update may be scaled, and look at their gradients.

    A closure may modulate within the step, so there need not be anything to scale by yet.

    Raises:
        StepError: the update that follows is not the one that was judged.
    """
    ledger, parts.modulations = parts.ledger, 0
    if parts.running:
        raise StepError(
            f"{type(optimizer).__name__}.step() within the loop over balancer.passes(): call "
            "balancer.modulate() and optimizer.step() after it"
        )
    record, cleared = ledger.modulated, set()
    hidden = parts.own.optimizer is not None or parts.separation is not None  # gradients
    if record is not None and hidden and not record.told:
        refuse_untold()
    if record is not None and optimizer not in record.stepped:
        fates = ledger.fates(optimizer)
        said = {fate for of in fates.values() for fate in of}
        if said == {"cleared"}:  # whatever gradients are there now, they are not the judged ones
            record.void.add(optimizer)
            return
        if "added" in said and parts.modulation.in_update_space:
            raise StepError(
                "gradients were added after balancer.modulate(), and the update that follows from "
                "all of them would be scaled: backpropagate them before modulate, or add to the "
                "loss"
            )
        cleared = {name for name, of in fates.items() if "cleared" in of}
    mine = held(optimizer)
    if parts.modulation.in_update_space:
        parts.modulation.before_update(mine, parts.active(), cleared)
    if parts.tracker.due(parts.steps if record is None else record.step):
        parts.tracker.before_update(mine)


def after_step(parts: Parts, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Scale the update, let methods keep what they proposed, and notice what was left out.

    Raises:
        StepError: the optimizer evaluated a closure more than once.
    """
    given = (*args[1:], kwargs.get("closure"))  # torch puts the optimizer itself before them
    closure = any(each is not None for each in given)
    _notice_forgotten(parts, optimizer, closure)
    if closure and parts.modulations > 1:
        raise StepError(
            f"{type(optimizer).__name__}.step evaluated its closure {parts.modulations} times, "
            "but evidence and noise belong to one gradient per step: use an optimizer that "
            "evaluates its closure once"
        )
    parts.notices.stepped()
    record = parts.ledger.modulated
    if record is None or optimizer in record.stepped | record.void or _overflowed(optimizer):
        parts.modulation.forget()
        parts.tracker.forget()
        if record is not None and optimizer not in record.stepped:
            record.void.add(optimizer)
    else:
        parts.modulation.on_updates(record.coefficients, parts.active(), record.step)
        parts.tracker.updates()
        if not record.stepped - record.void:
            parts.modulation.keep()
            parts.own.step()
            parts.methods.commit(parts.epoch)
            parts.scores.commit()
            parts.steps += 1
    if record is None:
        return
    record.stepped.add(optimizer)
    if len(record.stepped) == len(parts.optimizers):
        parts.ledger.leave()


def _overflowed(optimizer: Optimizer) -> bool:
    """Whether a scaler has told the optimizer that its gradients overflowed.

    A fused optimizer is stepped all the same, and leaves its parameters alone. Where it is on a
    device, the host waits for it here: what follows differs.
    """
    flag = getattr(optimizer, "found_inf", None)
    return flag is not None and bool(flag)


def _notice_forgotten(parts: Parts, optimizer: Optimizer, closure: bool) -> None:
    """Notice a step on gradients that `modulate` has not seen."""
    bypassed = parts.ledger.modulated is None and parts.handout.waiting
    parts.handout.waiting = False
    added, whose = parts.ledger.evidence.micro_batches > 0, parts.attached.bare_model
    stepped = trained(whose, optimizer) if added or bypassed else ()
    if any(added or parameter.grad is not None for parameter in stepped):
        parts.ledger.drop()
        parts.notices.forgotten(closure)
