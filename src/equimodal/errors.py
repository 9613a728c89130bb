"""What equimodal raises and warns, and the words for a misspelt name."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from typing import Any

ALIKE = 0.6  # of two names, as `difflib` counts it
MANY, FEW = 14, 6  # names that a message lists all of, and how many of more than that


class SetupError(ValueError):
    """The balancer cannot be attached as asked: the message says what to change."""


class MatchError(RuntimeError):
    """What a step was given does not fit together: no guess is made."""


class StepError(RuntimeError):
    """The calls of a training step came in an order that cannot be right."""


class DivergedError(RuntimeError):
    """A loss is no longer a number, so that going on is of no use."""


class BalanceWarning(UserWarning):
    """Training goes on, but not as intended."""


def warn(message: str) -> None:
    """Give a `BalanceWarning` at the line outside of equimodal and torch that led to it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _room(frame.f_globals) in ("equimodal", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, BalanceWarning, stacklevel=level)


def _room(namespace: dict[str, Any]) -> str:
    name: str = namespace.get("__name__", "")
    return name.split(".")[0]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, what was probably meant, and what there is.

    >>> unknown("method", "ogm-gee", ["joint", "ogm", "ogm-ge"])
    "unknown method 'ogm-gee': did you mean 'ogm-ge'? There are: joint, ogm, ogm-ge"
    """
    options = sorted(known)
    plain = _plain(name)
    likeness = {
        each: difflib.SequenceMatcher(None, plain, _plain(each)).ratio() for each in options
    }
    near = sorted(options, key=lambda each: -likeness[each])
    hint = f": did you mean '{near[0]}'?" if near and likeness[near[0]] >= ALIKE else "."
    if len(options) > MANY:
        return f"unknown {kind} '{name}'{hint} Nearest of {len(options)}: {', '.join(near[:FEW])}"
    return f"unknown {kind} '{name}'{hint} There are: {', '.join(options)}"


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")
