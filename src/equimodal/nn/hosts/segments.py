"""The loss of models that classify every segment of a recording."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def segment_cross_entropy(
    logits: Tensor, target: Tensor, reduction: str = "mean", ignore_index: int = -100
) -> Tensor:
    """Return the cross-entropy of segment-level logits, classes last.

    `torch.nn.functional.cross_entropy` wants the classes second. Transposing the logits before
    the loss would hide from `equimodal.Balancer` what the head returned, so the criterion does
    it. Read per sample, the loss of a recording is the mean over its segments.

    Args:
        logits: shape ``(B, T, C)``.
        target: class of every segment, int64, shape ``(B, T)``.
        reduction: "mean", "sum", or "none" for shape ``(B, T)``.
        ignore_index: class of segments that are left out.

    >>> import torch
    >>> segment_cross_entropy(torch.zeros(2, 10, 4), torch.zeros(2, 10, dtype=torch.int64))
    tensor(1.3863)
    """
    return F.cross_entropy(
        logits.transpose(1, 2), target, reduction=reduction, ignore_index=ignore_index
    )
