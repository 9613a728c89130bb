"""How long training is: what the schedules of methods follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from equimodal.errors import SetupError

if TYPE_CHECKING:
    from equimodal.method import Method


def share(epochs: int, of: int, least: int = 1) -> Callable[[int], int]:
    """Return a function from the length of training to the same share of it, in whole epochs.

    Args:
        epochs: the constant in the authors' run.
        of: how many epochs that run had.
        least: the smallest that is returned.

    >>> every = share(20, of=90)
    >>> every(90), every(40), every(2)
    (20, 9, 1)
    """

    def part(length: int) -> int:
        return max(least, round(length * epochs / of))

    return part


def planned(methods: Iterable[Method], epochs: int | None) -> None:
    """Tell methods how long training is, before they are bound.

    Args:
        methods: those that compose.
        epochs: how many times `end_epoch` will be called in all; None where nobody says.

    Raises:
        SetupError: `epochs` is no number of epochs, or a schedule follows it and it is not given.
    """
    if epochs is not None and not (type(epochs) is int and epochs >= 1):
        raise SetupError(
            "epochs: expected the number of epochs of the whole training, 1 or more, found "
            f"{epochs!r}"
        )
    for method in methods:
        method.plan(epochs)


def required(epochs: int | None, kind: str, argument: str) -> int:
    """Return the length of training, for an argument of a method that follows it.

    Raises:
        SetupError: it is not known.
    """
    if epochs is None:
        raise SetupError(
            f"{kind}({argument}) follows the length of training, which is not known: add epochs=N, "
            "how many epochs there will be in all, to eq.Balancer(...), or give "
            f"{argument} in epochs"
        )
    return epochs
