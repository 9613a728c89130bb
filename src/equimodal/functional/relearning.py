"""Diagnosing & Re-learning: how separable features are, and how far an encoder goes back."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_columns(features: Tensor) -> Tensor:
    """Scale every column to the range from -1 to 1; one that is constant becomes -1.

    Args:
        features: shape ``(N, D)``, N at least 1.

    >>> scale_columns(torch.tensor([[0.0, 3.0], [1.0, 3.0], [4.0, 3.0]]))
    tensor([[-1.0000, -1.0000],
            [-0.5000, -1.0000],
            [ 1.0000, -1.0000]])
    """
    low, high = features.aminmax(dim=0)
    width = high - low
    return 2 * (features - low) / torch.where(width > 0, width, 1) - 1


def purity(groups: Tensor, target: Tensor, classes: int) -> Tensor:
    r"""Share of samples that are of the most frequent class of their group.

    .. math:: P = \frac{1}{N} \sum_k \max_c |\{i : g_i = k, y_i = c\}|

    Args:
        groups: shape ``(N,)``, int64, 0 or more.
        target: shape ``(N,)``, int64 from 0 to C - 1.
        classes: C.

    Returns:
        Shape ``()``, double precision, above 0 and at most 1.

    >>> purity(torch.tensor([0, 0, 0, 1]), torch.tensor([2, 2, 1, 0]), classes=3)
    tensor(0.7500, dtype=torch.float64)
    """
    counts = torch.bincount(groups * classes + target, minlength=classes * classes)
    return counts.view(-1, classes).amax(dim=1).sum().double() / len(target)


def relearning_strength(train: Tensor, held_out: Tensor, strength: float) -> Tensor:
    r"""How far an encoder goes back to its initial weights (Wei et al., ECCV 2024).

    .. math:: \alpha = \tanh(\lambda |P_{train} - P_{held\,out}|)

    Args:
        train: purity of the features of the training data, any shape.
        held_out: purity of those of held-out data, the same shape.
        strength: lambda, at least 0.

    >>> relearning_strength(torch.tensor([0.9, 0.5]), torch.tensor([0.7, 0.5]), strength=3.0)
    tensor([0.5370, 0.0000])
    """
    return torch.tanh(strength * (train - held_out).abs())


def soften(current: Tensor, initial: Tensor, alpha: Tensor) -> Tensor:
    r"""Go back towards initial weights: :math:`\alpha \theta_{init} + (1 - \alpha) \theta`.

    Both are of the same shape, and :math:`\alpha` of none.

    >>> soften(torch.tensor([4.0]), torch.tensor([0.0]), torch.tensor(0.25))
    tensor([3.])
    """
    return torch.lerp(current, initial, alpha)
