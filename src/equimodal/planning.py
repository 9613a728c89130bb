"""How long training is: what the schedules of methods follow."""

from __future__ import annotations

from collections.abc import Callable

from equimodal.errors import SetupError


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


def refuse_length(epochs: int | None) -> None:
    """Refuse what is no number of epochs.

    Args:
        epochs: how many times `end_epoch` will be called in all; None where nobody says.

    Raises:
        SetupError: it is neither 1 or more, nor None.
    """
    if epochs is not None and not (type(epochs) is int and epochs >= 1):
        raise SetupError(
            "epochs: expected the number of epochs of the whole training, 1 or more, found "
            f"{epochs!r}"
        )


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
