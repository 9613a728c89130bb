"""Which methods can be compared on a data set, and why the others cannot."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence

from equimodal.balancer import Balancer
from equimodal.compare.runs import ALPHAS, Entry, Run, entry_of, main_job
from equimodal.compare.summary import REFERENCE
from equimodal.data import Samples, Splits
from equimodal.epochs.passes import last_is_target
from equimodal.errors import MatchError, SetupError, StepError
from equimodal.method import Method
from equimodal.methods import Ensemble, teachers_of
from equimodal.methods.registry import available, find
from equimodal.methods.supplied import TEACHERS, takes_teachers
from equimodal.training import Encoder, Settings, model_for

TRIED = 8  # samples of the step that every method is tried on


def rows_of(
    methods: Sequence[str] | None,
    splits: Splits[Samples],
    alphas: Sequence[float] = ALPHAS,
    settings: Settings | None = None,
    encoder: Encoder = "small",
    more: Sequence[str] = (),
) -> tuple[list[Entry], dict[str, str]]:
    """Return a row for every method that can run, with the settings it has by default.

    The methods of the main job have its rows: a modality alone each, a choice of alpha; MSLR has a
    choice of which modality is slowed, and how much. Joint training is always among them, since all
    are held against it.

    Args:
        methods: names in the registry, compositions as ``ogm-ge+multi-loss``; None for all of it.
        splits: the data.
        alphas: to choose from for OGM and OGM-GE.
        settings: how to train.
        encoder: what encodes a modality.
        more: compositions that are tried beside all methods, where none are named.

    Returns:
        The rows, and for each method that cannot run what it lacks; none of the latter if the
        methods are named.

    Raises:
        SetupError: a method that is named is unknown, or cannot run.
    """
    settings = (settings or Settings()).suited(splits.card.name)
    job = main_job(splits.modalities, alphas)
    usual = dict.fromkeys(entry.method for entry in job)
    names = [*usual, *(name for name in available() if name not in usual), *more]
    wanted = names if methods is None else [REFERENCE, *methods]
    rows = {
        name: entry_of(name, find(name.split("+")[0]), splits.modalities, settings.epochs or 1)
        for name in wanted
        if name not in usual
    }
    lacking = {}
    for name, row in rows.items():
        if reason := _lacking(row, splits, settings, encoder):
            if methods is not None:
                raise SetupError(f"{name} cannot be compared here: {reason}")
            lacking[name] = reason
    found = [entry for entry in job if entry.method in wanted]
    names = list(dict.fromkeys([*names, *rows]))
    others = [name for name in names if name in rows and name not in lacking]
    return [*found, *(rows[name] for name in others)], lacking


def _lacking(
    row: Entry, splits: Splits[Samples], settings: Settings, encoder: Encoder
) -> str | None:
    """Return why a row cannot run as it is, or None: it is tried on one step."""
    run = Run(row.label, row.method, row.choices()[0], 0)
    options = run.options if len(run.kinds) == 1 else {}
    for kind in run.kinds:
        if reason := _unfit(kind, run.options.get(kind.name, options), settings):
            return reason
    try:
        supplied = {}
        if any(map(takes_teachers, run.kinds)):
            with _tried([Ensemble()], splits, settings, encoder) as balancer:
                supplied[TEACHERS] = teachers_of(balancer, next(iter(splits.val.loader(TRIED))))
        with _tried(run.make(**supplied), splits, settings, encoder):
            pass
    except (SetupError, MatchError, StepError) as error:
        return str(error)
    return None


def _unfit(kind: type[Method], options: Mapping[str, object], settings: Settings) -> str | None:
    """Return what a method lacks before any step."""
    required = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in (*options, TEACHERS)
    ]
    if required:
        return f"needs {' and '.join(required)}"
    can = kind.capabilities
    if settings.accumulate > 1 and can.accumulation == "refused":
        return "cannot accumulate gradients over micro-batches"
    if settings.precision != "32" and not can.autocast:
        return "does not work in mixed precision"
    return None


@contextlib.contextmanager
def _tried(
    methods: list[Method], splits: Splits[Samples], settings: Settings, encoder: Encoder
) -> Iterator[Balancer]:
    """Take one step by methods."""
    model = model_for(splits, encoder=encoder)
    loader, transform = splits.train.loader(TRIED), splits.train.transform
    with Balancer(
        methods,
        model,
        dict(model.encoders.items()),
        model.head,
        settings.make_optimizer(model),
        forward=lambda model, batch: last_is_target(model, transform(batch)),
        train_loader=loader,
        val_loader=loader,
        epochs=settings.epochs or 1,
    ) as balancer:
        *inputs, target = transform(next(iter(balancer.batches(loader))))
        for _ in balancer.passes():
            balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        yield balancer
