"""Methods that are refused: with each other, for want of something, or in what the loop does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from equimodal.errors import MatchError, SetupError, StepError
from equimodal.method import Method, Need

SUPPLIED_BY: dict[Need, str] = {
    "training data": "train_loader=train_loader",
    "held-out data": "val_loader=val_loader (held out from training, never the test set)",
    "length of training": "epochs=N (how many epochs there will be in all)",
}


# What a second pass over the same batches would do once more, or otherwise.
ONCE = {
    "order": "acts on the batch that was drawn last, which would not be the one that runs again",
    "equip": "steps modules of its own within every loss",
    "attach": "looks at every forward by hooks of its own",
}


def refuse_others(given: Sequence[Any]) -> None:
    """Refuse what is no method.

    Raises:
        SetupError: something is none, or nothing is given.
    """
    for method in given:
        if not isinstance(method, Method):
            hint = f": write {method.__name__}(...)" if isinstance(method, type) else ""
            if isinstance(method, str):
                hint = f": write the class, as eq.OGMGE(...), or eq.methods.find({method!r})(...)"
            raise SetupError(f"expected a method, found {method!r}{hint}")
    if not given:
        raise SetupError("expected a method or a list of methods, found an empty list")


def refuse_conflicts(methods: Sequence[Method], modalities: Sequence[str]) -> None:
    """Refuse methods that exclude each other, or are not defined for these modalities.

    Raises:
        SetupError: with the reason.
    """
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise SetupError(f"method {name!r} is given {names.count(name)} times: give it once")

    def owning(hook: str) -> list[Method]:
        return [method for method in methods if method.overrides(hook)]

    for what, owners in {
        "combine the gradients of the loss terms": owning("combine"),
        "run the batches of a step again": owning("perturb"),
        "replace the joint loss": _overlapping([m for m in methods if m.replaces_joint]),
        "decide which samples an epoch has": owning("order"),
        "predict by a rule of their own": owning("predict"),
        "read single modalities by a rule of their own": owning("predict_unimodal"),
    }.items():
        if len(owners) > 1:
            classes = " and ".join(type(method).__name__ for method in owners)
            raise SetupError(f"{classes} cannot be combined: each wants to {what}")
    for first, second in itertools.permutations(methods, 2):
        kinds = type(first).__name__, type(second).__name__
        if isinstance(first, type(second)):
            raise SetupError(
                f"{kinds[0]} is a {kinds[1]}, and would do the same once more: give one of them"
            )
        scored = first.overrides("predict_unimodal") and not first.scored
        if scored and "scores" in second.needs:
            raise SetupError(
                f"{kinds[1]} cannot be combined with {kinds[0]}, which does not train the head "
                f"that scores are read through: leave out {kinds[1]}"
            )
    for first, second in itertools.product(owning("perturb"), methods):
        hooks = [hook for hook in ONCE if second.overrides(hook)]
        if second is not first and hooks:
            raise SetupError(
                f"{type(first).__name__} runs the batches of a step again, and "
                f"{type(second).__name__} {ONCE[hooks[0]]}: leave one of them out"
            )
    for method in methods:
        for name in method.modalities or ():
            if name not in modalities:
                raise SetupError(
                    f"{type(method).__name__}(modalities): no modality {name!r}, "
                    f"there are {list(modalities)}"
                )
        most = method.capabilities.most
        if most is not None and len(modalities) > most:
            raise SetupError(
                f"{type(method).__name__} is defined for {most} modalities, "
                f"found {len(modalities)}: {list(modalities)}"
            )


def _overlapping(methods: Sequence[Method]) -> list[Method]:
    """Return the first two methods that act in one epoch; those of two windows need not."""
    for first, second in itertools.combinations(methods, 2):
        (begin, end), (start, stop) = (method.window or (0, None) for method in (first, second))
        if (end is None or start <= end) and (stop is None or begin <= stop):
            return [first, second]
    return []


def refuse_unmet(methods: Iterable[Method], supplied: frozenset[Need]) -> None:
    """Refuse methods that need what the balancer was not given.

    Raises:
        SetupError: with what to add.
    """
    for method in methods:
        for need in sorted(method.needs & SUPPLIED_BY.keys() - supplied):
            raise SetupError(
                f"{type(method).__name__} needs {need}: add {SUPPLIED_BY[need]} to eq.Balancer(...)"
            )


def refuse_incapable(methods: Iterable[Method], ranks: int, sharded: bool) -> None:
    """Refuse methods that do not declare what this run asks of them.

    Args:
        methods: those that compose.
        ranks: how many train together.
        sharded: whether the model is, by FSDP2.

    Raises:
        SetupError: one does not.
    """
    for method in methods:
        kind = type(method).__name__
        if ranks > 1 and not method.capabilities.ranks:
            raise SetupError(
                f"{kind} does not work on several ranks, found {ranks}: train in one process"
            )
        if sharded and method.overrides("combine"):
            raise SetupError(
                f"{kind} combines the gradients of single loss terms, which are computed "
                "beside the reducer of fully_shard, for parameters that are whole only within "
                "it: use DistributedDataParallel"
            )
        if sharded and not method.capabilities.sharded:
            raise SetupError(
                f"{kind} does not declare that it works with fully sharded parameters "
                "(Capabilities(sharded=True)): use DistributedDataParallel"
            )


def refuse_unfit(methods: Iterable[Method], *, mixed: bool = False, compiled: bool = False) -> None:
    """Refuse methods that do not declare that they work as this step was computed.

    Also those that do not act yet, because later would be too late.

    Args:
        methods: those that compose.
        mixed: whether the head ran under autocast, or the loss was scaled.
        compiled: whether the head ran in compiled code.

    Raises:
        StepError: one does not.
    """
    for method in methods:
        kind = type(method).__name__
        if mixed and not method.capabilities.autocast:
            raise StepError(
                f"{kind} does not work under autocast and loss scaling "
                "(Capabilities(autocast=False)): train in full precision, or leave it out"
            )
        if compiled and not method.capabilities.compiled:
            raise StepError(
                f"{kind} does not work with a compiled head (Capabilities(compiled=False)): "
                "compile the encoders alone, encoder.compile(), or leave it out"
            )


def refuse_accumulation(acting: Iterable[Method]) -> None:
    """Refuse a second micro-batch within one optimizer step, where a method does.

    Raises:
        StepError: one does.
    """
    for method in acting:
        if method.capabilities.accumulation == "refused":
            raise StepError(
                f"{type(method).__name__} cannot accumulate gradients over micro-batches: call "
                "balancer.modulate() and optimizer.step() after every balancer.backward(loss)"
            )


def refuse_ungated(acting: Iterable[Method], drops: Sequence[str]) -> None:
    """Refuse a forward in which the features were to be dropped or scaled, but were not.

    Args:
        acting: the methods of this epoch.
        drops: the hooks by which features of this batch are dropped or scaled.

    Raises:
        MatchError: a method has one of them.
    """
    gating = [method for method in acting if any(map(method.overrides, drops))]
    if gating:
        who = " and ".join(type(method).__name__ for method in gating)
        raise MatchError(
            f"{who} drops or scales features before the head, and could not in this forward: "
            "it needs a head, eq.Balancer(..., head=...), that is not compiled"
        )
