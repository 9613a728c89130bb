"""The user's optimizers, and whether they train what is to be balanced."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from equimodal.errors import SetupError
from equimodal.system.hooks import eager, weakly
from equimodal.update.wrappers import steps, unwrapped

Optimizer = torch.optim.Optimizer


def given_optimizers(given: Any) -> list[Optimizer]:
    """Return the optimizers that step the user's parameters, out of what is wrapped around them.

    Args:
        given: an optimizer, several, or wrappers of some.

    Raises:
        SetupError: there is none, one that takes several gradients per step, or one whose gradients
            or steps cannot be reached.
    """
    several: Any = given if isinstance(given, Iterable) else [] if given is None else [given]
    optimizers = [each for optimizer in several for each in unwrapped(optimizer)]
    if not optimizers:
        raise SetupError("expected optimizer=..., the one that trains the model, found none")
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise SetupError(
                f"optimizer: expected a torch.optim.Optimizer, found {type(optimizer).__name__}"
            )
        if isinstance(optimizer, torch.optim.LBFGS):
            raise SetupError(
                "LBFGS evaluates its closure several times per step, but evidence and noise belong "
                "to one gradient: use an optimizer that takes one gradient per step"
            )
        if hasattr(optimizer, "param_d2h_map"):
            raise SetupError(
                f"{type(optimizer).__name__} copies gradients to the CPU within the backward pass, "
                "before balancer.modulate can act on them: use an optimizer on the device"
            )
    return optimizers


def held(*optimizers: Optimizer) -> set[nn.Parameter]:
    """Return all parameters in the groups of these optimizers."""
    return {p for each in optimizers for group in each.param_groups for p in group["params"]}


def trained(model: nn.Module, optimizer: Optimizer) -> set[nn.Parameter]:
    """Return the parameters of a model that an optimizer holds."""
    return held(optimizer).intersection(model.parameters())


def hook_steps(
    optimizers: Sequence[Optimizer], before: Callable[..., None], after: Callable[..., None]
) -> list[RemovableHandle]:
    """Call two methods before and after every step of the optimizers, without keeping their object.

    Args:
        optimizers: the user's.
        before: a bound method of (optimizer, args, kwargs).
        after: likewise.
    """
    return [
        handle
        for optimizer in optimizers
        for handle in (
            optimizer.register_step_pre_hook(eager(weakly(before))),
            optimizer.register_step_post_hook(eager(weakly(after))),
        )
    ]


def another(optimizer: Optimizer, parameters: Any) -> Optimizer:
    """Return an optimizer of the same class with the same settings, of other parameters.

    Args:
        optimizer: the one to be like.
        parameters: parameters, or parameter groups.

    Raises:
        SetupError: the class cannot be made from its own defaults, or refuses these parameters.
    """
    kind: Any = type(optimizer)
    accepted = inspect.signature(kind).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    settings = {k: v for k, v in optimizer.defaults.items() if anything or k in accepted}
    for name in set(accepted) - set(settings):  # kept beside the groups by some
        if name in vars(optimizer) and not steps(vars(optimizer)[name]) and name != "params":
            settings[name] = vars(optimizer)[name]
    try:
        made: Optimizer = kind(parameters, **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        inner = [value for value in vars(optimizer).values() if steps(value)]
        if len(inner) == 1:  # as one that shards what it holds
            return another(inner[0], parameters)
        raise SetupError(
            f"cannot make a second {kind.__name__} from the settings of yours ({error}): pass "
            "own_optimizer=lambda parameters: ... to eq.Balancer(...)"
        ) from error
    return made


def refuse_foreign(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Refuse optimizers of another model.

    Raises:
        SetupError: no optimizer holds a parameter of the model.
    """
    if not any(trained(model, optimizer) for optimizer in optimizers):
        raise SetupError(
            "no parameter of the model is in the optimizer: make the optimizer of "
            "model.parameters(), of the very model that the balancer is given, or pass all "
            "optimizers as a list"
        )
