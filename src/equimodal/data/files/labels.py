"""Labels of any kind as classes 0 to C-1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from equimodal.errors import SetupError

if TYPE_CHECKING:
    from equimodal.data.files.stored import Array


def relabelled(
    labels: Array, names: Sequence[str] | None = None, what: str = "target"
) -> tuple[Array, tuple[str, ...]]:
    """Number the classes that occur, in the order of their labels.

    Args:
        labels: integers or strings, shape ``(N,)``.
        names: what integer labels stand for, or None.
        what: how an error calls them.

    Returns:
        Classes 0 to C-1, int64, shape ``(N,)``, and the name of each.

    Raises:
        SetupError: the labels are no classes, fewer than two, or have no name.

    >>> import numpy as np
    >>> relabelled(np.array([7, 3, 7]), names="abcdefgh")
    (array([1, 0, 1]), ('d', 'h'))
    """
    import numpy as np

    if labels.ndim != 1 or labels.dtype.kind not in "biufUS":
        raise SetupError(
            f"{what}: expected one class per sample, found {labels.dtype} of shape {labels.shape}"
        )
    if labels.dtype.kind == "f" and not (labels == np.round(labels)).all():
        raise SetupError(
            f"{what}: expected classes, found numbers that are not whole: regression has no "
            "accuracy to compare by"
        )
    found, classes = np.unique(labels, return_inverse=True)
    if labels.dtype.kind in "US":
        spelt = tuple(map(str, found.tolist()))
    else:
        numbers = [int(each) for each in found]
        spelt = tuple(map(str, numbers))
        if names is not None:
            if numbers[0] < 0 or numbers[-1] >= len(names):
                raise SetupError(
                    f"{what}: expected labels from 0 to {len(names) - 1}, as many as there are "
                    f"names of classes, found {numbers[0]} to {numbers[-1]}"
                )
            spelt = tuple(names[number] for number in numbers)
    if len(found) < 2:
        there = f"only {spelt[0]}" if spelt else "none"
        raise SetupError(f"{what}: expected two classes or more, found {there}")
    return classes.reshape(-1).astype(np.int64), spelt
