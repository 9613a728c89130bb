"""MSLR: how a modality's accuracy changes its learning rate."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_accuracy(history: Tensor) -> Tensor:
    r"""Accuracy now over its mean in the latest epochs (Yao and Mihalcea, ACL Findings 2022).

    .. math:: \frac{a_m(e)}{\frac{1}{W} \sum_{w=0}^{W-1} a_m(e - w)}

    Args:
        history: accuracies of the latest W epochs, shape ``(W, M)``, the newest last; NaN for
            epochs that have not been.

    Returns:
        Shape ``(M,)``; 1 while the history is not full, and where all of it is 0.

    >>> relative_accuracy(torch.tensor([[0.2, 0.0], [0.6, 0.0]]))
    tensor([1.5000, 1.0000])
    >>> relative_accuracy(torch.tensor([[torch.nan], [0.6]]))
    tensor([1.])
    """
    ratio = history[-1] / history.mean(dim=0)
    return torch.where(ratio.isfinite(), ratio, 1)
