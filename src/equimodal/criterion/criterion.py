"""The user's loss, read as a whole and for every sample."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.criterion.counted import Counted, Counting
from equimodal.criterion.kind import Outputs, given_kind, told
from equimodal.criterion.unreduced import Loss, Unreduced, is_torchs, option
from equimodal.criterion.untouched import untouched
from equimodal.errors import MatchError, SetupError
from equimodal.functional.precision import at_least_single


class Criterion:
    """A loss function of (outputs, target) that can also be read sample by sample.

    `nn.*Loss` modules and functions with a `reduction` argument are asked for their unreduced
    losses, with class weights, `ignore_index`, label smoothing and all else they were given. A
    function that returns one loss per sample is taken as it is; one that returns a scalar is read
    by calling it on every sample alone, vectorised. Which elements count, torch's losses and those
    with a method ``counted(target)`` say; others are asked by their value, see `Counting`.

    Only `total` takes what the user's model returned. All other readings take logits, and turn
    them into what the loss takes: see `Outputs`.

    Args:
        loss: the user's criterion. Its own value is what `total` returns, unchanged.
        outputs: "logits", "log-probabilities" or "probabilities": what the criterion takes, where
            neither its class nor the graph of the outputs tells.

    Raises:
        SetupError: it cannot be called with outputs and a target.
    """

    def __init__(self, loss: Loss, outputs: str | None = None) -> None:
        if isinstance(loss, type) or not callable(loss):
            found = f"{loss!r}"
            if isinstance(loss, type):
                found = f"the class {loss.__name__}: write {loss.__name__}()"
            raise SetupError(
                "criterion: expected a function of (logits, target) or a loss module, found "
                f"{found}"
            )
        self.loss = loss
        self.given = given_kind(outputs)
        self.outputs = Outputs()
        self._told = self.given == "logits"
        self._unreduced = Unreduced(loss)
        self._ignored = _ignore_index(loss)
        self._torchs = is_torchs(loss)
        self._weighs = isinstance(option(loss, "weight"), Tensor)
        self._counting = Counting(_name(loss), self._ignored)
        self._batch: tuple[Tensor, Any] | None = None
        self._value: Tensor | None = None
        self._counted: Counted | None = None

    def tell(self, outputs: Tensor, target: Any) -> None:
        """Find out, once, what the criterion takes, from what the user's model gave it.

        Raises:
            MatchError: the criterion's class and the graph of the outputs contradict each other.
        """
        if not self._told:
            self.outputs = told(self.loss, self.given, _name(self.loss), outputs, target)
            self._told = not torch.compiler.is_compiling() and outputs.grad_fn is not None

    def at(self, outputs: Tensor, target: Any) -> Criterion:
        """Return the criterion of one batch, which looks once for what counts in it.

        Args:
            outputs: what the user's model gave.
            target: as the criterion takes it.
        """
        if self._torchs or hasattr(self.loss, "counted"):
            return self
        of_batch = copy.copy(self)
        of_batch._batch = (outputs.detach(), target)
        of_batch._value = of_batch._counted = None
        return of_batch

    def whole(self, outputs: Tensor, target: Any) -> Tensor:
        """Return `total` of what the user's model gave for the batch of `at`."""
        value = self.total(outputs, target)
        if self._batch is not None:
            self._value = value.detach()
        return value

    @torch.no_grad()
    def follow(self, outputs: Tensor, target: Any) -> None:
        """Let a criterion that follows its calls see a batch whose own loss nobody took."""
        if isinstance(self.loss, nn.Module) and not self._torchs:
            self.total(outputs, target)

    def total(self, outputs: Any, target: Any) -> Tensor:
        """Return the loss as the user would have computed it: a tensor of shape ``()``."""
        loss = self._call(self.loss, outputs, target)
        return loss if loss.ndim == 0 else loss.mean()

    def of(self, logits: Tensor, target: Any) -> Tensor:
        """Return the loss of logits, as the user would have computed it: shape ``()``."""
        with self._untouched(logits):
            return self.total(self.outputs.of(logits), target)

    def per_sample(self, logits: Tensor, target: Any) -> Tensor:
        """Return one loss per sample, shape ``(B,)``, at least in single precision.

        Losses over labels, pixels or segments are averaged within a sample, without the positions
        that do not count.

        Raises:
            MatchError: the criterion does not go with the logits or the target, or has no
                per-sample reading.
        """
        losses = self._elements(at_least_single(logits), target)
        if losses.ndim == 1 and self._torchs:
            return losses  # 0 where ignored
        counted = self._counts(losses, logits, target)
        if losses.ndim == 1:
            # The loss of a sample alone is NaN where nothing in it counts.
            return losses if counted.mask is None else torch.where(counted.mask, losses, 0)
        losses = losses.flatten(1)
        if counted.mask is None:
            mean = losses.mean(dim=1)
        else:
            mask = counted.mask.flatten(1)
            mean = torch.where(mask, losses, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        if counted.added is None or counted.added is False:
            return mean
        added = losses.sum(dim=1)
        return added if counted.added is True else torch.where(counted.added, added, mean)

    def each_per_sample(self, logits: Sequence[Tensor], target: Any) -> Tensor:
        """Return the losses of several logits for the same target, shape ``(len(logits), B)``.

        Samples do not see each other in the losses of torch, so that all are read in one call.
        """
        shapes = {each.shape for each in logits}
        together = self._torchs and len(shapes) == 1 and isinstance(target, Tensor)
        # Binary and squared errors may have a weight for every sample, which fits one batch alone.
        if not together or (self._weighs and target.is_floating_point()):
            return torch.stack([self.per_sample(each.detach(), target) for each in logits])
        with torch.no_grad():
            stacked = torch.cat(list(logits))
        repeated = target.repeat(len(logits), *[1] * (target.ndim - 1))
        return self.per_sample(stacked, repeated).view(len(logits), -1)

    def scored(self, logits: Sequence[Tensor], target: Any) -> tuple[Tensor, Tensor | None, int]:
        """Return what evidence is taken from.

        Returns:
            Losses of shape ``(len(logits), N)``; which do not count, shape ``(N,)``, or None; and
            how many of the N belong to each row of the batch: 1, or as many as a packed row may
            hold samples.
        """
        packed: Callable[[Any], Tensor | None] | None = getattr(self.loss, "packed", None)
        places = None if packed is None else packed(target)
        if places is None:
            return self.each_per_sample(logits, target), self.ignored(target), 1
        size, length = places.shape
        rows = torch.arange(size, device=places.device)[:, None]
        groups, mask = (rows * length + places).flatten(), self._known(target)
        assert mask is not None
        counts = groups.new_zeros(size * length).index_add_(0, groups, mask.flatten().long())
        found = []
        for each in logits:
            losses = self._elements(at_least_single(each.detach()), target).flatten()
            sums = losses.new_zeros(size * length).index_add_(0, groups, losses)
            found.append(sums / counts.clamp(min=1))
        return torch.stack(found), counts == 0, length

    def ignored(self, target: Any) -> Tensor | None:
        """Return which samples have nothing to predict, shape ``(B,)``; None if all have."""
        if self._torchs:
            of_torch = self._ignored_by_torch(target)
            return (
                of_torch if of_torch is None or of_torch.ndim == 1 else of_torch.flatten(1).all(1)
            )
        mask = self._known(target)
        if mask is None and self._batch is not None and target is self._batch[1]:
            mask = self._of_batch().mask
        if mask is None and self._batch is None:
            ignored = self._ignored_by_torch(target)
            mask = None if ignored is None else ~ignored
        if mask is None:
            return None
        return ~mask if mask.ndim == 1 else ~mask.flatten(1).any(dim=1)

    def weighted(
        self, logits: Tensor, target: Any, weight: Tensor, among: Tensor | None = None
    ) -> Tensor:
        """Return the mean over samples with these weights, shape ``()``: weight 0 drops a sample.

        With weights that are all equal it is `of`, the user's own value.

        Args:
            logits: first dimension B.
            target: as the criterion takes it.
            weight: shape ``(B,)``, not negative.
            among: weights of the samples that the mean is over, shape ``(B,)``; `weight` by
                default. With others, what is dropped lessens the mean.
        """
        losses = self._elements(logits, target)
        counted = self._counts(losses, logits, target)
        share = torch.ones_like(losses)
        if counted.share is not None:
            share = counted.share.to(losses.dtype).view_as(losses)
        elif counted.mask is not None:
            share = counted.mask.to(losses.dtype)
        if counted.mask is not None:
            losses = torch.where(counted.mask, losses, 0)
        if self._unreduced.alone:
            losses = losses * share  # a sample alone gives its own mean
        says = getattr(self.loss, "weights", None)  # of samples, which its losses do not hold
        weights = None if says is None else says(target)
        if weights is not None:
            losses, share = losses * weights.to(losses), share * weights.to(losses)
        self._counting.refuse_unsure(counted)
        shape = (-1, *[1] * (losses.ndim - 1))
        weight = weight.to(losses.dtype).view(shape)
        whole = weight if among is None else among.to(losses.dtype).view(shape)
        total = (whole * share).sum()
        # Not the smallest number in place of 0: a loss scale times its inverse would overflow.
        mean = (weight * losses).sum() / torch.where(total > 0, total, 1)
        return mean if counted.scale is None else counted.scale * mean

    def _elements(self, logits: Tensor, target: Any) -> Tensor:
        return self._losses(self.outputs.of(logits), target)

    def _losses(self, outputs: Tensor, target: Any) -> Tensor:
        with self._untouched(outputs):
            losses = self._call(self._unreduced, outputs, target)
        if losses.ndim == 0 or losses.shape[0] != outputs.shape[0]:
            raise MatchError(
                f"expected one loss per sample from {_name(self.loss)}, {outputs.shape[0]} in all, "
                f"found shape {tuple(losses.shape)}: give a criterion with reduction='none'"
            )
        if self._torchs and losses.numel() > outputs.numel():
            raise MatchError(
                f"{_name(self.loss)} compares every sample with every other: logits "
                f"{_describe(outputs)} and target {_describe(target)} were broadcast to losses of "
                f"shape {tuple(losses.shape)}. Give both the same shape, as by logits.squeeze(1) "
                "or target[:, None]"
            )
        return losses

    def _untouched(self, outputs: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._torchs else untouched(self.loss, outputs)

    def _call(self, loss: Loss, outputs: Any, target: Any) -> Tensor:
        try:
            return loss(outputs, target)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise MatchError(
                f"the criterion {_name(self.loss)} does not take logits {_describe(outputs)} with "
                f"target {_describe(target)}: {error}{_device_hint(outputs, target)}"
            ) from error

    # ------------------------------------------------------------------ what counts

    def _counts(self, losses: Tensor, logits: Tensor, target: Any) -> Counted:
        mask = self._known(target)
        if mask is not None or self._torchs:
            if mask is not None:
                mask = _fitting(mask, losses, _name(self.loss))
            share, weight = None, option(self.loss, "weight")
            if mask is not None and self._torchs and isinstance(weight, Tensor):
                share = weight.to(losses)[target.clamp(min=0, max=len(weight) - 1)] * mask
            return Counted(mask, share, added=option(self.loss, "reduction") == "batchmean")
        if self._batch is not None and target is self._batch[1]:
            return self._of_batch()
        with torch.no_grad():
            total = self._call(self.loss, self.outputs.of(logits), target)
        return self._look(losses, total, target)

    def _known(self, target: Any) -> Tensor | None:
        """Return which elements count, as the criterion itself says; None if it does not."""
        says: Callable[[Any], Tensor] | None = getattr(self.loss, "counted", None)
        if says is not None:
            return says(target) != 0
        ignored = self._ignored_by_torch(target) if self._torchs else None
        return None if ignored is None else ~ignored

    def _ignored_by_torch(self, target: Any) -> Tensor | None:
        if self._ignored is None or not isinstance(target, Tensor) or target.is_floating_point():
            return None
        return target == self._ignored

    def _of_batch(self) -> Counted:
        if self._counted is None:
            assert self._batch is not None
            outputs, target = self._batch
            with torch.no_grad():
                total = self._value
                if total is None:
                    total = self._call(self.loss, outputs, target)
                losses = self._losses(at_least_single(outputs), target)
            self._counted = self._look(losses, total, target)
        return self._counted

    def _look(self, losses: Tensor, total: Tensor, target: Any) -> Counted:
        if self._unreduced.alone:
            return self._counting.of_samples(losses, total, target)
        return self._counting.of_elements(losses, total, target)


def _ignore_index(loss: Loss) -> int | None:
    found = option(loss, "ignore_index")
    return found if isinstance(found, int) else None


def _fitting(mask: Tensor, losses: Tensor, name: str) -> Tensor:
    if mask.shape == losses.shape:
        return mask
    if mask.numel() == losses.numel():
        return mask.view_as(losses)
    raise MatchError(
        f"{name}.counted: expected the shape of its unreduced losses, {tuple(losses.shape)}, found "
        f"{tuple(mask.shape)}"
    )


def _name(loss: Loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _device_hint(logits: Any, target: Any) -> str:
    here, there = (getattr(value, "device", None) for value in (logits, target))
    if not isinstance(target, Tensor) or here is None or here == there:
        return ""
    return f". The target is on {there}, the logits are on {here}: write target.to(logits.device)"


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
