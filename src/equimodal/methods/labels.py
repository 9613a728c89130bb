"""The class of every sample, for methods that are defined for classification alone."""

from __future__ import annotations

from torch import Tensor

from equimodal.errors import MatchError
from equimodal.step import Shapes, Step


def refuse_numbers(shapes: Shapes, method: str) -> None:
    """Refuse outputs that are no scores of classes, before anything is made for them.

    Raises:
        MatchError: a sample has not two logits or more.
    """
    if len(shapes.logits) != 1 or shapes.logits[0] < 2:
        found = ", ".join(["B", *map(str, shapes.logits)])
        raise MatchError(
            f"{method} is defined for one class per sample: expected logits of shape (B, classes), "
            f"found ({found})"
        )


def class_labels(step: Step, method: str) -> tuple[Tensor, Tensor | None]:
    """Return the classes of the samples, and which samples have one.

    Args:
        step: one micro-batch.
        method: how messages call the method.

    Returns:
        Class numbers, shape ``(B,)``, long, 0 where a sample has none; and which samples have one,
        shape ``(B,)``, bool, or None if the criterion ignores no target.

    Raises:
        MatchError: the target is no class number per sample.
    """
    target, shape = step.target, tuple(step.logits.shape)
    whole = isinstance(target, Tensor) and not target.is_floating_point()
    if not whole or len(shape) != 2 or target.shape != shape[:1]:
        found = type(target).__name__
        if isinstance(target, Tensor):
            found = f"{str(target.dtype).removeprefix('torch.')} of shape {tuple(target.shape)}"
        raise MatchError(
            f"{method} is defined for one class per sample: expected logits of shape (B, classes) "
            f"and a target of class numbers of shape (B,), found logits of shape {shape} and "
            f"target {found}"
        )
    ignored = step.criterion.ignored(target)
    if ignored is None:
        return target.long(), None
    return target.long().masked_fill(ignored, 0), ~ignored
