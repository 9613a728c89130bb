"""The user's loss, read as a whole and for every sample."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import MatchError, SetupError, warn
from equimodal.functional.precision import at_least_single

Loss = Callable[[Any, Any], Tensor]


class Criterion:
    """A loss function of (logits, target) that can also be read sample by sample.

    `nn.*Loss` modules and functions with a `reduction` argument are asked for their unreduced
    losses, with class weights, `ignore_index`, label smoothing and all else they were given. A
    function that returns one loss per sample is taken as it is; one that returns a scalar is read
    by calling it on every sample alone, vectorised.

    Args:
        loss: the user's criterion. Its own value is what `total` returns, unchanged.

    Raises:
        SetupError: it cannot be called with logits and a target.
    """

    def __init__(self, loss: Loss) -> None:
        if isinstance(loss, type) or not callable(loss):
            found = f"{loss!r}"
            if isinstance(loss, type):
                found = f"the class {loss.__name__}: write {loss.__name__}()"
            raise SetupError(
                "criterion: expected a function of (logits, target) or a loss module, found "
                f"{found}"
            )
        self.loss = loss
        self._unreduced = _without_reduction(loss)
        self._ignored = _ignore_index(loss)
        self._torchs = _is_torchs(loss)
        self._weighs = isinstance(_option(loss, "weight"), Tensor)

    def total(self, logits: Any, target: Any) -> Tensor:
        """Return the loss as the user would have computed it: a tensor of shape ``()``."""
        loss = self._call(self.loss, logits, target)
        return loss if loss.ndim == 0 else loss.mean()

    def per_sample(self, logits: Tensor, target: Any) -> Tensor:
        """Return one loss per sample, shape ``(B,)``, at least in single precision.

        Losses over labels, pixels or segments are averaged within a sample, without the positions
        that `ignore_index` leaves out.

        Raises:
            MatchError: the criterion does not go with the logits or the target, or has no
                per-sample reading.
        """
        losses = self._elements(at_least_single(logits), target)
        if losses.ndim <= 1:
            return losses
        ignored = self._ignored_elements(target)
        if ignored is None:
            return losses.flatten(1).mean(dim=1)
        return losses.flatten(1).sum(dim=1) / (~ignored).flatten(1).sum(dim=1).clamp(min=1)

    def each_per_sample(self, logits: Sequence[Tensor], target: Any) -> Tensor:
        """Return the losses of several logits for the same target, shape ``(len(logits), B)``.

        Samples do not see each other in the losses of torch, so that all are read in one call.
        """
        shapes = {each.shape for each in logits}
        together = self._torchs and len(shapes) == 1 and isinstance(target, Tensor)
        # Binary and squared errors may have a weight for every sample, which fits one batch alone.
        if not together or (self._weighs and target.is_floating_point()):
            return torch.stack([self.per_sample(each.detach(), target) for each in logits])
        stacked = torch.cat([each.detach() for each in logits])
        repeated = target.repeat(len(logits), *[1] * (target.ndim - 1))
        return self.per_sample(stacked, repeated).view(len(logits), -1)

    def ignored(self, target: Any) -> Tensor | None:
        """Return which samples have nothing to predict, shape ``(B,)``; None if all have."""
        ignored = self._ignored_elements(target)
        if ignored is None or ignored.ndim == 1:
            return ignored
        return ignored.flatten(1).all(dim=1)

    def weighted(
        self, logits: Tensor, target: Any, weight: Tensor, among: Tensor | None = None
    ) -> Tensor:
        """Return the mean over samples with these weights, shape ``()``: weight 0 drops a sample.

        With weights that are all equal it is `total` for a criterion that averages.

        Args:
            logits: what the criterion takes, first dimension B.
            target: as the criterion takes it.
            weight: shape ``(B,)``, not negative.
            among: weights of the samples that the mean is over, shape ``(B,)``; `weight` by
                default. With others, what is dropped lessens the mean.
        """
        losses = self._elements(logits, target)
        share = self._share(losses, target)
        shape = (-1, *[1] * (losses.ndim - 1))
        weight = weight.to(losses.dtype).view(shape)
        whole = weight if among is None else among.to(losses.dtype).view(shape)
        total = (whole * share).sum()
        # Not the smallest number in place of 0: a loss scale times its inverse would overflow.
        return (weight * losses).sum() / torch.where(total > 0, total, 1)

    def _elements(self, logits: Tensor, target: Any) -> Tensor:
        losses = self._call(self._unreduced, logits, target)
        if losses.ndim == 0 or losses.shape[0] != logits.shape[0]:
            raise MatchError(
                f"expected one loss per sample from {_name(self.loss)}, {logits.shape[0]} in all, "
                f"found shape {tuple(losses.shape)}: give a criterion with reduction='none'"
            )
        if self._torchs and losses.numel() > logits.numel():
            raise MatchError(
                f"{_name(self.loss)} compares every sample with every other: logits "
                f"{_describe(logits)} and target {_describe(target)} were broadcast to losses of "
                f"shape {tuple(losses.shape)}. Give both the same shape, as by logits.squeeze(1) "
                "or target[:, None]"
            )
        return losses

    def _call(self, loss: Loss, logits: Any, target: Any) -> Tensor:
        try:
            return loss(logits, target)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise MatchError(
                f"the criterion {_name(self.loss)} does not take logits {_describe(logits)} with "
                f"target {_describe(target)}: {error}{_device_hint(logits, target)}"
            ) from error

    def _ignored_elements(self, target: Any) -> Tensor | None:
        if self._ignored is None or not isinstance(target, Tensor) or target.is_floating_point():
            return None
        return target == self._ignored

    def _share(self, losses: Tensor, target: Any) -> Tensor:
        """Return what each element adds to the denominator of the mean."""
        share = torch.ones_like(losses)
        ignored = self._ignored_elements(target)
        if ignored is None:
            return share
        class_weight = _option(self.loss, "weight")
        if isinstance(class_weight, Tensor):
            share = class_weight.to(losses)[target.clamp(min=0, max=len(class_weight) - 1)]
        return share * ~ignored.view_as(losses)


def _without_reduction(loss: Loss) -> Loss:
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        unreduced: Any = copy.copy(loss)
        unreduced.reduction = "none"
        return unreduced  # type: ignore[no-any-return]
    if "reduction" in _parameters(loss):
        return functools.partial(loss, **{"reduction": "none"})
    return _BySample(loss)


class _BySample:
    """A loss that may return one number for a batch, called on every sample alone."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.compared = False

    def __call__(self, logits: Any, target: Any) -> Tensor:
        losses = self.loss(logits, target)
        if losses.ndim:
            return losses
        try:
            each = torch.func.vmap(self._of_one, randomness="different")(logits, target)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise MatchError(
                f"it returns one number for the batch, and none for a sample alone ({error}). Give "
                "it an argument `reduction` that it understands as torch's losses do, or let it "
                "return one loss per sample"
            ) from error
        if not self.compared and not torch.compiler.is_compiling():
            self.compared = True
            self._notice_interplay(losses.detach(), each.detach())
        return each

    def _of_one(self, row: Tensor, label: Tensor) -> Tensor:
        return self.loss(row[None], label[None])

    def _notice_interplay(self, whole: Tensor, each: Tensor) -> None:
        """Warn, once, of a loss that is no mean or sum over samples."""
        near = [
            torch.isclose(t, whole, 1e-3, 1e-5, equal_nan=True) for t in (each.mean(), each.sum())
        ]
        if not any(near):
            warn(
                f"the criterion {_name(self.loss)} is {whole:.4g} for a batch, but "
                f"{each.mean():.4g} as the mean over single samples. If samples see each other in "
                "it, as in a contrastive loss, scores read from it are wrong: give it an argument "
                "`reduction` that it understands as torch's losses do"
            )


def _ignore_index(loss: Loss) -> int | None:
    found = _option(loss, "ignore_index")
    return found if isinstance(found, int) else None


def _is_torchs(loss: Loss) -> bool:
    """Whether a loss is torch's own, and hence reads every sample by itself."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    module = type(function).__module__ if isinstance(function, nn.Module) else function.__module__
    return module.startswith("torch.nn.")


def _option(loss: Loss, name: str) -> Any:
    """Return an option of a loss module, or the default of a loss function (bound by partial)."""
    if name in (parameters := _parameters(loss)):
        return parameters[name].default
    return getattr(loss, name, None)


def _parameters(loss: Loss) -> Any:
    if isinstance(loss, nn.Module):
        return {}
    try:
        return inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return {}


def _name(loss: Loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _device_hint(logits: Any, target: Any) -> str:
    here, there = (getattr(value, "device", None) for value in (logits, target))
    if here is None or there is None or here == there:
        return ""
    return f". The target is on {there}, the logits are on {here}: write target.to(logits.device)"


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
