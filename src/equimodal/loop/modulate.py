"""Once per optimizer step: judge the evidence, combine, scale and freeze gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equimodal.composing.refusals import refuse_unfit
from equimodal.errors import StepError
from equimodal.loop.lacking import leave_alone
from equimodal.loop.ledger import Judged
from equimodal.loop.parts import Parts
from equimodal.method import REST
from equimodal.system import ranks
from equimodal.update.modulation import Modulated
from equimodal.update.reach import Reached
from equimodal.update.scaling import unscale


def modulated(parts: Parts, scaler: torch.amp.GradScaler | None) -> Modulated:
    """Act on the gradients, and return what is to become of the update that follows from them.

    Args:
        parts: of the balancer.
        scaler: the gradient scaler, where one is used.

    Raises:
        StepError: nothing was backpropagated since the last step, or it was dropped.
    """
    ledger = parts.ledger
    ledger.drop_cleared()
    if not ledger.evidence.micro_batches:
        raise StepError(
            "balancer.modulate: nothing was backpropagated since the last step, or its gradients "
            "were cleared: call balancer.backward(loss) before it, optimizer.zero_grad() not in "
            "between, and modulate once per optimizer step"
        )
    ledger.refuse_gathered()
    _refuse_half(parts)
    if scaler is not None:
        refuse_unfit(parts.methods, mixed=scaler.is_enabled())
        unscale(scaler, parts.optimizers)
    factor = ledger.factor()
    judged = ledger.judged or judge(parts)
    evidence, coefficients = judged.evidence, judged.coefficients
    active = parts.active()
    if parts.trunk is not None:
        parts.notices.unseparated(parts.trunk.settle(parts.process_group))
    if parts.tracker.due(parts.steps):
        parts.tracker.gradients()
        parts.tracker.latest |= {} if parts.trunk is None else parts.trunk.norms()
    if judged.scored:
        parts.tracker.judged(evidence[""], coefficients)
        parts.notices.unsound(evidence[""].log_scores, parts.scores.unusable)
    leave_alone(parts)
    unreached = parts.modulation.unreached(active)
    if unreached:
        parts.attached.modalities.refuse_changed()
    parts.notices.untouched(unreached, evidence[""])
    parts.modulation.on_gradients(coefficients, active, parts.steps)
    parts.methods.adjust(parts.attached.modalities, evidence, parts.epoch)
    if parts.trunk is not None:
        frozen = parts.methods.frozen(parts.epoch)
        parts.trunk.on_gradients(coefficients, active, frozen, parts.steps)
    for parameter in _frozen(parts, ledger.reached):
        parameter.grad = None
    parts.own.prepare(scaler, parts.process_group, factor)
    ledger.drop()
    return Modulated(coefficients, parts.steps, set(), scaler is not None)


def judge(parts: Parts) -> Judged:
    """Judge what was measured over all micro-batches and ranks, and combine gradients of terms."""
    parts.agree()
    scored = parts.evidence.log_scores is not None
    evidence = parts.scores.judged(parts.evidence.reduce(parts.names, parts.process_group))
    coefficients = parts.methods.coefficients(evidence, parts.epoch)
    if parts.separation is not None:
        parts.notices.untouched(parts.separation.unreached())
        parts.separation.combine(parts.process_group)
    return Judged(evidence, coefficients, scored)


def _refuse_half(parts: Parts) -> None:
    """Refuse to judge within the passes over a step, or after half of them.

    Raises:
        StepError: with what to write.
    """
    method = parts.repeating()
    if parts.running or (method is not None and parts.ledger.judged is None):
        kind = type(method).__name__
        raise StepError(
            f"balancer.modulate: {kind} has not run the batches of this step again: let the loop "
            "over balancer.passes() come to its end, and call balancer.modulate() after it"
        )


def _frozen(parts: Parts, reached: Reached | None) -> list[nn.Parameter]:
    """Return the parameters that must not move in this step.

    Of those outside of the encoders only what the replaced joint loss alone would have trained:
    what any other loss leads to, a shared backbone or a decoder of the user's, is trained by it.
    """
    names = parts.methods.frozen(parts.epoch)
    modalities = parts.attached.modalities
    frozen = [owned.parameter for name in names - {REST} for owned in modalities.owned[name]]
    if REST in names and reached is not None:
        left = reached.leaves(modalities.rest, parts.attached.head)
        frozen += _on_all_ranks(parts, left)
    return frozen


def _on_all_ranks(parts: Parts, left: list[nn.Parameter]) -> list[nn.Parameter]:
    """Return those of the parameters that are left on every rank: one may lack a modality."""
    if ranks.world_size(parts.process_group) == 1:
        return left
    rest, mine = parts.attached.modalities.rest, set(left)
    device = next(parts.attached.bare_model.parameters()).device
    flags = torch.tensor([float(parameter in mine) for parameter in rest], device=device)
    everywhere: Tensor = ranks.gather(flags, parts.process_group).amin(dim=0)
    return [p for p, flag in zip(rest, everywhere.tolist(), strict=True) if flag]
