"""Methods and scores have state: each belongs to one balancer at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from equimodal.errors import SetupError

if TYPE_CHECKING:
    Leaving = weakref.finalize[..., Any]

# Not an attribute of theirs: a copy of a method is held by nobody.
_LEAVING: weakref.WeakKeyDictionary[nn.Module, Leaving] = weakref.WeakKeyDictionary()


def hold(parts: Iterable[nn.Module], leave: Leaving) -> None:
    """Note that a balancer holds these until it leaves: is detached, or is no more."""
    for part in parts:
        _LEAVING[part] = leave


def refuse_held(parts: Iterable[nn.Module]) -> None:
    """Refuse methods and scores that another balancer holds.

    Raises:
        SetupError: one is held.
    """
    for part in parts:
        leave = _LEAVING.get(part)
        if leave is not None and leave.alive:
            kind = type(part).__name__
            raise SetupError(
                f"this {kind} is in use by another balancer, and they would share its state: "
                f"detach that one first, balancer.detach(), or give each a {kind} of its own, "
                "such as a copy.deepcopy of it"
            )
