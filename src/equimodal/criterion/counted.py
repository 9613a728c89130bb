"""Which elements of a loss count in its mean: what a criterion of one's own does not say itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.errors import MatchError, warn
from equimodal.late import Late

SAY = (
    "give it a method counted(target) that returns which elements count, of the shape of its "
    "unreduced losses; for tokens take eq.TokenLoss(ignore_index=..., shift=...)"
)


@dataclass(frozen=True)
class Counted:
    """What counts in one batch.

    Attributes:
        mask: which elements do, bool, of the shape of the losses; None where all do.
        share: what each adds to the denominator of the mean; None where it is the mask.
        scale: factor from the mean over what counts to the criterion's value; None for 1.
        added: whether the criterion adds up the losses within a sample, bool; None if not.
        unsure: whether its mean is neither of all elements nor of those that count, nor their sum;
            None if it is.
    """

    mask: Tensor | None = None
    share: Tensor | None = None
    scale: Tensor | None = None
    added: Tensor | bool | None = None
    unsure: Tensor | None = None


class Counting:
    """Finds out what counts in a criterion of one's own, from its value and its losses.

    Elements whose label is negative (or `ignore_index`) and whose loss is exactly 0 do not count.
    For others that are 0 the value tells: it is the mean of all elements, of those whose label is
    not that of the zeros (padding), or of those that are not 0. All of it is computed on the
    device; if nothing fits, and something is 0, the step after is refused.

    Args:
        name: how messages call the criterion.
        ignore_index: the criterion's option of that name, where it has one.
    """

    def __init__(self, name: str, ignore_index: int | None) -> None:
        self.name = name
        self.ignore_index = ignore_index
        self.late = Late(self._judge)
        self.weighing = Late(self._judge_weighing)
        self._padding: int | None = None  # the label of what does not count, once it is known
        self._trusted = False  # a mean of unknown denominator, of losses that were never 0
        self._warned = False

    @torch.no_grad()
    def of_elements(self, losses: Tensor, total: Tensor, target: Any) -> Counted:
        """Return what counts.

        Args:
            losses: unreduced, shape ``(B, ...)``.
            total: the criterion's value for the same batch, shape ``()`` or that of the losses.
            target: what the criterion was given.
        """
        self.late.settle()
        losses = losses.detach()
        rtol = 1e-4 if total.dtype in (torch.float32, torch.float64) else 2e-2
        total = total.detach().to(losses.dtype)
        zero, summed, size = losses == 0, losses.sum(), losses.numel()
        # On a CPU most is known after a look or two, which elsewhere would make the device wait.
        eager = losses.device.type == "cpu" and not torch.compiler.is_compiling()
        if eager and not zero.any() and (total.ndim or _near(summed / size, total, rtol)):
            return Counted()
        labels = _labels(target, losses.shape)
        kept = torch.ones_like(zero)
        if labels is not None:
            kept = ~(zero & self._nothing(labels, losses.ndim))
        if total.ndim:  # one loss per sample by itself: its mean is the library's
            return Counted(kept)
        if eager and not (zero & kept).any() and _near(summed / kept.sum(), total, rtol):
            return Counted(kept)
        padded, padding = kept, torch.full_like(kept.flatten()[0], -1, dtype=torch.long)
        if labels is not None and labels.shape == losses.shape:
            place = zero.flatten().to(torch.uint8).argmax(dim=0, keepdim=True)
            padding = labels.flatten().index_select(0, place)[0].long()  # nothing waits
            if self._padding is not None:
                padding = torch.full_like(padding, self._padding)
            padded = kept & (labels != padding)
        counts = torch.stack([of.sum() for of in (kept, padded, ~zero)]).to(losses.dtype)
        means = torch.cat(
            [summed / counts, torch.stack([summed / size, summed / len(losses), summed])]
        )
        near = _near(means, total, rtol)
        which, known = near.to(torch.uint8).argmax(), near.any()
        # A sum, or one divided by the samples, does not tell what counts; labels that all the
        # zeros have do.
        by_label = (which == 1) | ((which >= 4) & (padded | zero).all())
        mask = torch.where(known & by_label, padded, kept)
        mask = torch.where(known & (which == 2), ~zero, mask)
        share = torch.where(known & (which == 3), torch.ones_like(mask), mask)
        scale = total * share.sum() / torch.where(summed != 0, summed, 1)
        scale = torch.where(known & (which < 4), 1, scale)
        sound = summed.isfinite() & total.isfinite() & ~known
        strange = sound & (zero & kept).any()
        self._note(strange, sound, torch.where(known & (which == 1), padding, -1))
        return Counted(mask, share, scale, known & (which == 4), sound)

    @torch.no_grad()
    def of_samples(self, losses: Tensor, total: Tensor, target: Any) -> Counted:
        """Return which samples count, where the criterion gives one number for every batch.

        Args:
            losses: its value for every sample alone, shape ``(B,)``; NaN where nothing counts.
            total: its value for the batch, shape ``()``.
            target: what the criterion was given.
        """
        self.late.settle()
        rtol = 1e-3 if total.dtype in (torch.float32, torch.float64) else 2e-2
        losses, total = losses.detach(), total.detach().to(losses.dtype)
        eager = losses.device.type == "cpu" and not torch.compiler.is_compiling()
        if eager and losses.all() and _near(losses.mean(), total, rtol):
            return Counted()
        labels = _labels(target, losses.shape)
        if labels is None:
            means = torch.stack([losses.mean(), losses.sum()])
            near, mask, share = _near(means, total, rtol), None, None
        else:
            rows = (~self._nothing(labels, labels.ndim)).reshape(len(losses), -1)
            numbers = [rows.sum(1), rows[:, 1:].sum(1)] if rows.shape[1] > 1 else [rows.sum(1)]
            weights = torch.stack([numbers[0] > 0, *numbers]).to(losses.dtype)
            clean = torch.where(weights > 0, losses, 0)
            sums = (clean * weights).sum(1)
            means = torch.cat([sums / weights.sum(1), sums[:1] / len(losses), sums[:1]])
            near = _near(means, total, rtol)
            which = near.to(torch.uint8).argmax(dim=0, keepdim=True)
            share = weights.index_select(0, torch.where(which < len(weights), which, 0))[0]
            mask = share > 0
            share = torch.where(which == len(weights), torch.ones_like(share), share)
        odd = total.isfinite() & ~near.any()
        tokens = labels is not None and labels.ndim > 1
        never = torch.zeros_like(odd)
        self._note(odd if tokens else never, never, never.long() - 1, odd, total, losses.nanmean())
        return Counted(mask, share, unsure=odd)

    def refuse_unsure(self, counted: Counted) -> None:
        """Refuse, a step later on a device, to weigh samples in a mean that is not understood."""
        if counted.unsure is not None:
            self.weighing.note(counted.unsure.float()[None])

    def _note(self, *numbers: Tensor) -> None:
        self.late.note(torch.stack([number.float() for number in numbers]))

    def _nothing(self, labels: Tensor, rank: int) -> Tensor:
        """Return where labels say that there is nothing to predict, for losses of a rank."""
        nothing = labels < 0
        if self.ignore_index is not None and self.ignore_index >= 0:
            nothing = nothing | (labels == self.ignore_index)
        return nothing.flatten(rank).all(-1) if nothing.ndim > rank else nothing

    def _judge(self, numbers: list[float]) -> None:
        strange, unknown, padding, *apart = numbers
        if strange and not self._trusted:
            raise MatchError(
                f"the criterion {self.name}: its mean is neither that of its elements nor of those "
                f"that count, so what a sample's loss is cannot be told: {SAY}"
            )
        self._trusted = self._trusted or bool(unknown)
        if padding >= 0:
            self._padding = int(padding)
        if apart and apart[0] and not self._warned:
            self._warned = True
            _, total, mean = apart
            warn(
                f"the criterion {self.name} is {total:.4g} for a batch, but {mean:.4g} as the mean "
                "over single samples. If samples see each other in it, as in a contrastive loss, "
                "scores read from it are wrong: give it an argument `reduction` that it "
                "understands as torch's losses do"
            )

    def _judge_weighing(self, numbers: list[float]) -> None:
        if any(numbers):
            raise MatchError(
                f"the criterion {self.name}: its mean is neither that of its elements nor of those "
                "that count, so samples cannot be weighed in it, as by present= or by a method "
                f"that drops some: {SAY}"
            )


def _near(means: Tensor, total: Tensor, rtol: float) -> Tensor:
    return (means - total).abs() <= rtol * total.abs() + 1e-9


def _labels(target: Any, shape: torch.Size) -> Tensor | None:
    """Return labels that belong to losses of a shape: also without the first, where shifted."""
    if not isinstance(target, Tensor) or target.is_floating_point() or target.is_complex():
        return None
    if target.dtype == torch.bool or target.ndim < 1 or target.shape[0] != shape[0]:
        return None
    if target.shape[: len(shape)] == shape:
        return target
    if target.ndim > 1 and target[:, 1:].shape == shape:
        return target[:, 1:]
    return None
