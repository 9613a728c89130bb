"""Run every diagnostic on a model, and advise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Any

from torch import Tensor

from equimodal.diagnostics.advice.diagnosis import Diagnosis, Reading
from equimodal.diagnostics.advice.references import (
    Known,
    better,
    references_of,
    refuse_other_order,
    together_of,
)
from equimodal.diagnostics.advice.rules import advise
from equimodal.diagnostics.contributions.robustness import robustness
from equimodal.diagnostics.contributions.shapley import Shapley, shapley, shapley_of
from equimodal.diagnostics.contributions.subsets import EXACT, Subsets, subsets
from equimodal.diagnostics.contributions.utilisation import utilisation
from equimodal.diagnostics.encoders.alone import Alone
from equimodal.diagnostics.encoders.cost import cost
from equimodal.diagnostics.encoders.gap import gap
from equimodal.diagnostics.encoders.probes import probes
from equimodal.diagnostics.finite import length
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_interval
from equimodal.diagnostics.outputs.agreement import agreement_of
from equimodal.diagnostics.outputs.calibration import calibration_of
from equimodal.diagnostics.outputs.chance import chance
from equimodal.diagnostics.outputs.discrepancy import discrepancy
from equimodal.diagnostics.outputs.predictions import Predictions, predictions
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.traceless import refuse_iterator
from equimodal.diagnostics.training.gradients import gradients
from equimodal.errors import SetupError

BATCHES = 20  # of the training data, for gradients: two backward passes each


def diagnose(
    subject: Subject,
    train_loader: Iterable[Any] | None,
    loader: Iterable[Any],
    *,
    alone: Alone | Known | Callable[[], Alone | Known] | None = None,
    classes: Sequence[str] | None = None,
    model: str | None = None,
    data: str = "",
    split: str = "",
    curves: Mapping[str, Any] | None = None,
    compare: str = "",
    again: str = "",
    notes: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Find out what each modality contributes to a classifier, and whether to balance.

    Nothing is changed in the model, and no encoder is trained here: `diagnostics.alone`
    does that, and what it returns says most. Without it the advice is "cannot tell".

    Args:
        subject: a classifier: logits of shape ``(B, C)`` and one class per sample.
        train_loader: its training data, for linear probes and gradients; None for neither.
        loader: held-out data to examine it on, passed over about a dozen times, always in the same
            order.
        alone: what each encoder reaches when it is trained alone, on the data of `loader`: from
            `equimodal.diagnostics.alone`; or what is known, see `gap`; or a function that returns
            either, called when all that can be refused before has been.
        classes: their names; numbers by default.
        model: what to call the model; its class by default.
        data: what to call the data.
        split: what to call this part of it.
        curves: of its training, see `Curves.to_dict`.
        compare: a command to be advised, without ``--methods``, that compares methods on the data.
        again: a command to be advised that trains each encoder alone too, where that is what lacks.
        notes: what a reader has to know.
        resamples: of the bootstrap.
        seed: of what is drawn.
        say: told what is done next.

    Raises:
        MatchError: it is no classifier.
        SetupError: a loader is empty, does not end, can be passed over only once, or gives another
            order in every pass; or samples lack a modality.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = diagnose(subject, [batch(60)], [batch(60, seed=2)], resamples=100)
    >>> found.modalities, found.samples, found.advice.verdict
    (('audio', 'visual'), 60, 'cannot tell')
    """
    for each in (train_loader, loader):
        if each is not None:
            refuse_iterator(each)
    say("reading the modalities through the head")
    found = predictions(subject, loader)
    names = _named(found, classes)
    if callable(alone):
        say("training each encoder alone")
        alone = alone()
    known = None if alone is None else references_of(alone, loader, found, resamples, seed)
    parts = subsets(subject, loader, resamples=resamples, seed=seed)
    exact = len(subject.names) <= EXACT
    values = (
        shapley_of(parts, resamples)
        if exact
        else shapley(subject, loader, resamples=resamples, seed=seed)
    )
    read, rows = _read(parts, found, resamples, seed)
    leading, behind = _behind(values)
    above = chance(found.joint.labels, found.target, found.classes, resamples, seed)
    labels = {name: of.labels for name, of in found.alone.items()}
    examined = Diagnosis(
        model=type(subject.model).__name__ if model is None else model,
        data=data,
        split=split,
        samples=len(found.target),
        classes=names,
        modalities=subject.names,
        chance=above.uniform,
        accuracy=above.accuracy,
        above_chance=above.above_largest,
        subsets={
            fill: {"+".join(kept): of for kept, of in zip(parts.members, each, strict=True)}
            for fill, each in parts.intervals.items()
        },
        shapley=values.intervals,
        read=read,
        leading=leading,
        behind=behind,
        trainable=_trainable(subject),
        agreement=agreement_of(labels, found.target, classes=names, resamples=resamples).to_dict(),
        utilisation=utilisation(
            subject, loader, known=parts, resamples=resamples, seed=seed
        ).to_dict(),
        calibration=calibration_of(found, resamples=resamples).to_dict(),
        discrepancy=discrepancy(subject, loader, resamples=resamples, seed=seed).to_dict(),
        cost=cost(subject, loader).to_dict(),
        curves=curves,
        notes=tuple(notes),
    )
    say("disturbing the modalities")
    disturbed = robustness(subject, loader, resamples=resamples, seed=seed)
    examined = replace(examined, robustness=disturbed.to_dict())
    could = [] if known is None else [_without(known.values, known.bare)]
    if known is not None:
        examined = replace(
            examined,
            alone={
                **_means(_without(known.values, known.bare), resamples, seed),
                **{n: Interval(float(known.values[n][0]), nan, nan) for n in sorted(known.bare)},
            },
            alone_tells=known.tells,
        )
    if train_loader is not None:
        say("training linear probes on the frozen encoders")
        probed = probes(subject, train_loader, loader, resamples=resamples, seed=seed)
        refuse_other_order(found.target, probed.target)
        could.append(probed.values)
        examined = replace(
            examined,
            probes=probed.accuracy,
            gradients=_gradients(subject, train_loader),
        )
        if known is not None:
            say("putting the encoders that were trained alone under one head")
            examined = replace(
                examined,
                gap=gap(known.known, probed, resamples, seed).difference,
                together=together_of(subject, known, found, train_loader, loader, resamples, seed),
            )
    if any(could):
        both = {name: [of[name] for of in could if name in of] for name in subject.names}
        best = {name: better(of) for name, of in both.items() if of}
        short = {name: of - rows[name] for name, of in best.items()}
        examined = replace(examined, shortfall=_means(short, resamples, seed))
    return replace(examined, advice=advise(examined, compare, again))


def _named(found: Predictions, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is None:
        return tuple(map(str, range(found.classes)))
    if len(classes) != found.classes:
        raise SetupError(
            f"classes: expected {found.classes} names, one for each logit, found {len(classes)}"
        )
    return tuple(map(str, classes))


def _read(
    parts: Subsets, found: Predictions, resamples: int, seed: int
) -> tuple[dict[str, Reading], dict[str, Tensor]]:
    """Read each modality alone, and return also whether it was right, sample by sample."""
    read, rows = {}, {}
    for name in parts.names:
        row = parts.members.index((name,))
        fill = max(parts.values, key=lambda fill: parts.intervals[fill][row].value)
        beyond = {each: parts.versus(each, (name,), ()) for each in parts.values}
        against = chance(found.alone[name].labels, found.target, found.classes, resamples, seed)
        tells = against.tells or any(of.low > 0 for of in beyond.values())
        read[name] = Reading(fill, parts.intervals[fill][row], beyond[fill], tells)
        rows[name] = parts.values[fill][row].double()
    return read, rows


def _behind(values: Shapley) -> tuple[str, dict[str, Interval]]:
    means = {name: sum(of[name].value for of in values.intervals.values()) for name in values.names}
    leading = max(means, key=lambda name: means[name])
    behind = {}
    for name in values.names:
        if name != leading:
            gaps = [values.versus(fill, leading, name) for fill in values.intervals]
            behind[name] = min(gaps, key=lambda of: of.low)
    return leading, behind


def _gradients(subject: Subject, loader: Iterable[Any]) -> dict[str, Any] | None:
    if not any(_trainable(subject).values()):
        return None
    some = Spread(loader, BATCHES)
    return gradients(subject, some).to_dict()


def _trainable(subject: Subject) -> dict[str, int]:
    modalities = subject.attached.modalities
    return {
        name: sum(each.parameter.numel() for each in modalities.trainable(name))
        for name in subject.names
    }


class Spread:
    """Some batches of a loader, evenly from all of it: the first may all be of one class.

    Args:
        loader: may draw from a generator; of one without a length the first batches are taken.
        batches: at most as many.
    """

    def __init__(self, loader: Iterable[Any], batches: int) -> None:
        self.loader = loader
        self.batches = batches
        self.generator = getattr(loader, "generator", None)
        self.sampler = getattr(loader, "sampler", None)

    def __iter__(self) -> Iterator[Any]:
        count = length(self.loader) or self.batches
        step = max(1, -(-count // self.batches))
        return itertools.islice(self.loader, 0, count, step)


def _without(values: Mapping[str, Tensor], bare: Collection[str]) -> dict[str, Tensor]:
    """Return what is known sample by sample: of a mere accuracy nobody knows how sure it is."""
    return {name: of for name, of in values.items() if name not in bare}


def _means(values: Mapping[str, Tensor], resamples: int, seed: int) -> dict[str, Interval]:
    return {name: mean_interval(of, resamples, seed) for name, of in values.items()}
