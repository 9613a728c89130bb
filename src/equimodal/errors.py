"""What equimodal raises and warns, and the words for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SetupError(ValueError):
    """The balancer cannot be attached as asked: the message says what to change."""


class MatchError(RuntimeError):
    """What a step was given does not fit together: no guess is made."""


class StepError(RuntimeError):
    """The calls of a training step came in an order that cannot be right."""


class BalanceWarning(UserWarning):
    """Training goes on, but not as intended."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, what was probably meant, and what there is.

    >>> unknown("method", "ogm-gee", ["joint", "ogm", "ogm-ge"])
    "unknown method 'ogm-gee': did you mean 'ogm-ge'? There are: joint, ogm, ogm-ge"
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    hint = f": did you mean '{close[0]}'?" if close else "."
    return f"unknown {kind} '{name}'{hint} There are: {', '.join(options)}"
