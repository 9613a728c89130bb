"""From a step to the terms of its loss, and to its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from equimodal.composing.pairs import refuse_pairs
from equimodal.composing.refusals import refuse_unfit, refuse_ungated
from equimodal.composing.summed import summed
from equimodal.epochs.redrive import narrowed
from equimodal.errors import StepError
from equimodal.loop.handout import Pending
from equimodal.loop.own_losses import OwnLosses
from equimodal.loop.parts import Parts
from equimodal.scores import Given
from equimodal.step import Step


def matched(parts: Parts, logits: Any, target: Any, present: Mapping[str, Tensor] | None) -> Step:
    """Return the step that led to these logits, with the batch that it is of.

    Arguments are those of `equimodal.Balancer.loss`.
    """
    if parts.batch is None and parts.methods.any("order") and not parts.driven:
        parts.notices.unordered()
    indices, kept = (None, {}) if parts.batch is None else parts.batch
    step = parts.attached.step(logits, target, narrowed(present, kept), indices, parts.epoch)
    step.process_group, step.single = parts.process_group, parts.micro_batches == 1
    # What the order of an epoch leaves out alone always keeps one modality that is there.
    gated = bool(present) or parts.methods.any("gate")
    step.thinned = gated and bool(step.present and step.gates)
    return step


def of_step(parts: Parts, step: Step) -> tuple[Tensor, Pending]:
    """Return the loss to backpropagate, shape ``()``, and what belongs to it.

    Args:
        parts: of the balancer.
        step: the micro-batch, with its graph.

    Raises:
        MatchError: a method cannot act on this step.
        StepError: a method does not work as this step was computed.
    """
    refuse_misfit(parts, step)
    alone = parts.methods.owner("predict_unimodal")
    if alone is not None and alone.scored:
        step.run_scores = alone.predict_unimodal
    if parts.shapes is None:
        if parts.attached.sharding is None:  # fully_shard exchanges parameters in every forward
            parts.attached.modalities.refuse_changed()
        refuse_pairs(step, parts.methods, parts.scores)
    parts.make_modules(step.shapes)
    terms = parts.methods.terms(step)
    parts.placeholders.look(step.target)
    if "joint" not in vars(step):
        step.criterion.follow(step.logits if step.outputs is None else step.outputs, step.target)
    probe = parts.scores.objective(step)
    if probe is not None:
        terms["scores/probe"] = probe
    total, zero = summed(terms, step, parts.process_group)
    if parts.running == 2:  # what was measured is of the weights as they are
        return total, Pending(terms, None, {}, zero)
    scores = step.log_scores() if parts.scored() else None
    measured = parts.methods.measure(step)
    parts.tracker.losses(terms)
    return total, Pending(terms, scores, measured, zero)


def own_losses(parts: Parts, own: OwnLosses) -> tuple[Tensor, Pending]:
    """Return the loss to backpropagate of losses that the user hands over, and what belongs to it.

    Args:
        parts: of the balancer.
        own: one loss per sample and modality.

    Raises:
        MatchError: a method or the scores read logits.
    """
    scored = parts.scored()
    own.refuse_readers(parts.methods, parts.scores, scored)
    if parts.batch is not None and parts.batch[1]:
        refuse_ungated(parts.acting(), ("gate", "order"))
    parts.make_modules(own.shapes)
    terms = {"joint": own.total()}
    scores = own.log_scores(cast("Given", parts.scores)) if scored else None
    parts.tracker.losses(terms | own.means)
    pending = Pending(terms, scores, {}, lacking=own.lacking)
    return own.trained(terms["joint"]), pending


def refuse_misfit(parts: Parts, step: Step) -> None:
    """Refuse a step in which a method that acts cannot do what it is to do."""
    if step.autocast or step.compiled:
        refuse_unfit(parts.methods, mixed=step.autocast, compiled=step.compiled)
    if parts.trunk is not None and step.compiled:
        raise StepError(
            "eq.Tokens separates gradients by hooks on layers, which compiled code does not run: "
            "leave the model uncompiled, or leave tokens= out"
        )
    if step.gates is None and parts.attached.recorder.boundary.training:
        drops = ("gate", "order") if parts.batch is not None and parts.batch[1] else ("gate",)
        refuse_ungated(parts.acting(), drops)
