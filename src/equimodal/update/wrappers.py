"""Optimizers around other optimizers: which one steps, and which one the user calls."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch

from equimodal.errors import SetupError

# Trainers' wrappers, which hand the optimizer within to a gradient scaler.
PASSING = ("accelerate", "lightning", "pytorch_lightning")
_AROUND: weakref.WeakKeyDictionary[torch.optim.Optimizer, Any] = weakref.WeakKeyDictionary()


def steps(value: object) -> bool:
    """Whether something is an optimizer, or wraps one: it has groups of parameters and a step."""
    return (
        not isinstance(value, type)
        and callable(getattr(value, "step", None))
        and isinstance(getattr(value, "param_groups", None), list)
    )


def within(optimizer: Any) -> Iterator[Any]:
    """Yield an optimizer, and those that it is wrapped around, from the outside in."""
    seen: set[int] = set()
    while id(optimizer) not in seen:
        yield optimizer
        seen.add(id(optimizer))
        inner = {id(value): value for value in vars(optimizer).values() if steps(value)}
        if len(inner) == 1:
            candidate = next(iter(inner.values()))
            # One that shards its parameters holds an optimizer of its own part of them.
            if _parameters(candidate) == _parameters(optimizer):
                optimizer = candidate


def innermost(optimizer: Any) -> Any:
    """Return the optimizer that steps in the end.

    What is done to its update is what all that are around it see: they average it, or take half of
    it back, as they do without a coefficient.
    """
    *_, last = within(optimizer)
    return last


def unwrapped(optimizer: Any) -> list[Any]:
    """Return the optimizers whose hooks run when a user steps this one.

    Raises:
        SetupError: hooks do not run.
    """
    if not callable(getattr(optimizer, "zero_grad", None)):  # a schedule
        return [optimizer]
    if not steps(optimizer):
        parts = [
            part
            for value in getattr(optimizer, "__dict__", {}).values()
            for part in (value if isinstance(value, list | tuple) else [value])
            if steps(part)
        ]
        return [each for part in parts for each in unwrapped(part)] or [optimizer]
    chain = list(within(optimizer))
    for each in reversed(chain):
        if isinstance(each, torch.optim.Optimizer) and hears(each):
            if each is not optimizer and not _passes_on(optimizer):
                _AROUND[each] = optimizer
            return [each]
    if not isinstance(optimizer, torch.optim.Optimizer):
        return [optimizer]
    raise SetupError(
        f"{type(optimizer).__name__} does not run the hooks of its steps, so that a step would go "
        "unnoticed: call super().__init__(params, defaults) in its __init__, or pass the optimizer "
        "that it wraps"
    )


def outermost(optimizer: torch.optim.Optimizer) -> Any:
    """Return what the user has wrapped around an optimizer, or the optimizer itself."""
    return _AROUND.get(optimizer, optimizer)


def hears(optimizer: Any) -> bool:
    """Whether `step` of an optimizer runs the hooks that are registered with it."""
    return "_optimizer_step_post_hooks" in vars(optimizer) and hasattr(
        type(optimizer).step, "hooked"
    )


def _passes_on(optimizer: Any) -> bool:
    return any(kind.__module__.split(".")[0] in PASSING for kind in type(optimizer).__mro__)


def _parameters(optimizer: Any) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
