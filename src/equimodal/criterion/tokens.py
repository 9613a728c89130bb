"""Cross-entropy of tokens, with a mask and shifted labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.errors import MatchError, SetupError
from equimodal.functional.precision import at_least_single

Target = Tensor | tuple[Tensor | None, ...]


class TokenLoss(nn.Module):
    r"""Cross-entropy of the tokens that count, for `eq.Balancer(..., criterion=eq.TokenLoss())`.

    .. math:: L = \frac{1}{\sum_{i,t} c_{it}} \sum_{i,t} c_{it}\, \ell(u_{it}, y_{it}), \quad
        c_{it} = [y_{it} \ne \text{ignore\_index}]

    The evidence of a sample is taken from the mean over its own tokens that count; a sample without
    any does not count. A row of the batch is one sample, unless the target says which samples a row
    holds: give ``(labels, samples)`` for packed rows, with the number of the sample that every
    token belongs to, shape ``(B, T)``. No token then predicts the first of another sample.

    Weights of samples are the third entry, shape ``(B,)``, or ``(B, T)`` where a row holds several:
    ``(labels, None, weights)``. The loss is the weighted mean; evidence is of the samples as they
    are, since a weight does not make a sample any better known.

    Args:
        ignore_index: the label of tokens that do not count, such as prompts and padding.
        shift: whether position t predicts label t + 1, as with the labels that language models of
            transformers take; give False for labels that are shifted already, or that belong to
            their own position.
        label_smoothing: from 0 to 1, as for `torch.nn.CrossEntropyLoss`.

    Raises:
        SetupError: the smoothing is out of its range.
    """

    def __init__(
        self, ignore_index: int = -100, *, shift: bool = True, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise SetupError(
                f"TokenLoss(label_smoothing): expected a number from 0 to 1, found "
                f"{label_smoothing}"
            )
        self.ignore_index = ignore_index
        self.shift = shift
        self.label_smoothing = label_smoothing
        self.reduction = "mean"  # or "none", by which the library asks for every position

    def labels(self, target: Target) -> Tensor:
        """Return the label that every position predicts, shape ``(B, T)``."""
        labels, samples, _ = _entries(target)
        if not self.shift:
            return labels
        if samples is not None:  # the first token of a sample is predicted by none
            starts = F.pad(samples[:, 1:] != samples[:, :-1], (1, 0))
            labels = labels.masked_fill(starts, self.ignore_index)
        # The labels are moved, not the logits, which would be copied; the last predicts nothing.
        return F.pad(labels[:, 1:], (0, 1), value=self.ignore_index)

    def counted(self, target: Target) -> Tensor:
        """Return which positions count, shape ``(B, T)``, bool."""
        return self.labels(target) != self.ignore_index

    def packed(self, target: Target) -> Tensor | None:
        """Return the place of every token's sample among those of its row, shape ``(B, T)``.

        None where a row is one sample.
        """
        samples = _entries(target)[1]
        if samples is None:
            return None
        return F.pad(samples[:, 1:] != samples[:, :-1], (1, 0)).cumsum(1)

    def weights(self, target: Target) -> Tensor | None:
        """Return the weight of every position, shape ``(B, T)`` or ``(B, 1)``; None without."""
        labels, _, weights = _entries(target)
        if weights is None:
            return None
        if weights.shape not in (labels.shape, labels.shape[:1]):
            raise MatchError(
                f"expected weights of shape ({labels.shape[0]},) or {tuple(labels.shape)}, found "
                f"{tuple(weights.shape)}"
            )
        return weights if weights.ndim > 1 else weights[:, None]

    def each(self, logits: Tensor, target: Target) -> Tensor:
        """Return the loss of every position, shape ``(B, T)``, 0 where it does not count.

        Args:
            logits: shape ``(B, T, V)``.
            target: labels, shape ``(B, T)``, long; ``(labels, samples)``; or
                ``(labels, samples, weights)``.

        Raises:
            MatchError: the shapes do not go together.
        """
        given = [tensor for tensor in _entries(target)[:2] if tensor is not None]
        for tensor in given:
            if logits.ndim != 3 or tensor.shape != logits.shape[:2]:
                raise MatchError(
                    "expected logits of shape (B, T, V), labels of shape (B, T) and, for packed "
                    f"rows, (labels, samples), found {tuple(logits.shape)} and "
                    f"{', '.join(str(tuple(tensor.shape)) for tensor in given)}"
                )
        losses = F.cross_entropy(
            at_least_single(logits).flatten(0, 1),
            self.labels(target).flatten(),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return losses.view(logits.shape[:2])

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        """Return the mean over the tokens that count, shape ``()``; 0 where none does."""
        if self.reduction == "none":
            return self.each(logits, target)
        losses, counted, weights = (
            self.each(logits, target),
            self.counted(target),
            self.weights(target),
        )
        if weights is None:
            return losses.sum() / counted.sum().clamp(min=1)
        weights = weights.to(losses)
        total = (weights * counted).sum()
        return (weights * losses).sum() / torch.where(total > 0, total, 1)


def _entries(target: Target) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return labels, samples and weights."""
    given: Any = target if isinstance(target, tuple | list) else (target,)
    if not 1 <= len(given) <= 3 or given[0] is None:
        raise MatchError(
            "expected labels, (labels, samples) or (labels, samples, weights), found a tuple of "
            f"{len(given)}"
        )
    labels, samples, weights = (*given, None, None)[:3]
    return labels, samples, weights
