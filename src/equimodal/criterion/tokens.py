"""Cross-entropy of tokens, with a mask and shifted labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.errors import MatchError, SetupError
from equimodal.functional.precision import at_least_single


class TokenLoss(nn.Module):
    r"""Cross-entropy of the tokens that count, for `eq.Balancer(..., criterion=eq.TokenLoss())`.

    .. math:: L = \frac{1}{\sum_{i,t} c_{it}} \sum_{i,t} c_{it}\, \ell(u_{it}, y_{it}), \quad
        c_{it} = [y_{it} \ne \text{ignore\_index}]

    The evidence of a sample is taken from the mean over its own tokens that count; a sample without
    any does not count. A row of the batch is one sample: see `docs/tasks/tokens.md` for packing.

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

    def labels(self, target: Tensor) -> Tensor:
        """Return the label that every position predicts, shape ``(B, T)``."""
        if not self.shift:
            return target
        # The labels are moved, not the logits, which would be copied; the last predicts nothing.
        return F.pad(target[:, 1:], (0, 1), value=self.ignore_index)

    def counted(self, target: Tensor) -> Tensor:
        """Return which positions count, shape ``(B, T)``, bool."""
        return self.labels(target) != self.ignore_index

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every position, shape ``(B, T)``, 0 where it does not count.

        Args:
            logits: shape ``(B, T, V)``.
            target: labels, shape ``(B, T)``, long.

        Raises:
            MatchError: the shapes do not go together.
        """
        if logits.ndim != 3 or tuple(target.shape) != tuple(logits.shape[:2]):
            raise MatchError(
                "expected logits of shape (B, T, V) and labels of shape (B, T), found "
                f"{tuple(logits.shape)} and {tuple(target.shape)}"
            )
        losses = F.cross_entropy(
            at_least_single(logits).flatten(0, 1),
            self.labels(target).flatten(),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return losses.view_as(target)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the tokens that count, shape ``()``; 0 where none does."""
        if self.reduction == "none":
            return self.each(logits, target)
        return self.each(logits, target).sum() / self.counted(target).sum().clamp(min=1)
