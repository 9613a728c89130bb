"""Hooks that keep no object alive, and that the compiler stays out of."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch._compile import _disable_dynamo


def eager(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the compiler out of a function, without importing it before it is needed."""
    disabled: Callable[..., Any] = _disable_dynamo(function)
    return disabled


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a bound method as long as its object lives."""
    bound: Any = method
    owner, function = weakref.ref(bound.__self__), bound.__func__

    def call(*arguments: Any) -> Any:
        alive = owner()
        return None if alive is None else function(alive, *arguments)

    return call
