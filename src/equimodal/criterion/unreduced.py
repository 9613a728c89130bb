"""A loss asked for its elements: by `reduction`, or one sample at a time."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from equimodal.errors import MatchError

Loss = Callable[[Any, Any], Tensor]


class Unreduced:
    """Losses before they are averaged, of whatever can be asked for them.

    A loss that keeps a `reduction` and does not obey it, or that has none and returns one number,
    is called on every sample alone, vectorised.

    Args:
        loss: the user's.

    Attributes:
        alone: whether it is called on every sample alone; known after the first call.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.alone = False
        self._ordered = False

    def __call__(self, logits: Tensor, target: Any) -> Tensor:
        if not self.alone:
            losses = _without_reduction(self.loss)(logits, target)
            if losses.ndim:
                return self._by_samples(losses, logits, target)
            self.alone = True
        return self._each(logits, target)

    def _each(self, logits: Tensor, target: Any) -> Tensor:
        leaves, tree = tree_flatten(target)
        dims = [0 if _by_sample(leaf, len(logits)) else None for leaf in leaves]

        def of_one(row: Tensor, *alone: Any) -> Tensor:
            batch = [x if d is None else x[None] for x, d in zip(alone, dims, strict=True)]
            return self.loss(row[None], tree_unflatten(batch, tree))

        try:
            dims_of = (0, *dims)
            return torch.func.vmap(of_one, dims_of, randomness="different")(logits, *leaves)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise MatchError(
                f"it returns one number for the batch, and none for a sample alone ({error}). Give "
                "it an argument `reduction` that it understands as torch's losses do, or let it "
                "return one loss per sample"
            ) from error

    def _by_samples(self, losses: Tensor, logits: Tensor, target: Any) -> Tensor:
        """Return losses that were flattened over positions, shape ``(B * T,)``, as ``(B, T)``."""
        size = logits.shape[0]
        if losses.ndim != 1 or losses.shape[0] == size or not isinstance(target, Tensor):
            return losses
        positions = target.numel() // size if target.ndim > 1 else 0
        if not any(losses.shape[0] == size * t for t in (positions, positions - 1) if t > 0):
            return losses
        by_sample = losses.view(size, -1)
        if not self._ordered and not torch.compiler.is_compiling():
            asked = _without_reduction(self.loss)
            first = asked(logits[:1], target[:1]).detach().flatten()
            if first.shape != by_sample[0].shape or not torch.allclose(
                first.float(), by_sample[0].detach().float(), 1e-3, 1e-3, equal_nan=True
            ):
                return losses  # in another order: refused by its shape
            self._ordered = True
        return by_sample


def _by_sample(leaf: Any, size: int) -> bool:
    """Whether a part of a target holds one entry per sample."""
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == size


def _without_reduction(loss: Loss) -> Loss:
    """Return the loss as it is now, with no reduction: its settings may change between epochs."""
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        unreduced: Any = copy.copy(loss)
        unreduced.reduction = "none"
        return unreduced  # type: ignore[no-any-return]
    if "reduction" in parameters(loss):
        return functools.partial(loss, **{"reduction": "none"})
    return loss


def parameters(loss: Loss) -> Any:
    """Return the arguments that a loss function takes; none for a module."""
    if isinstance(loss, nn.Module):
        return {}
    try:
        return inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return {}


def option(loss: Loss, name: str) -> Any:
    """Return an option of a loss module, or the default of a loss function (bound by partial)."""
    if name in (known := parameters(loss)):
        return known[name].default
    return getattr(loss, name, None)


def is_torchs(loss: Loss) -> bool:
    """Whether a loss is torch's own, and hence reads every sample by itself."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    of: Any = type(function) if isinstance(function, nn.Module) else function
    return str(getattr(of, "__module__", "")).startswith("torch.nn.")
