"""When an encoder is in its prime learning window, and how strongly it is then held back."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def prime_indicator(traces: Tensor) -> Tensor:
    r"""How much of the mean information came with the latest epoch.

    .. math:: k_e = \frac{A_e - A_{e-1}}{A_e}, \qquad A_e = \frac{1}{n} \sum_{i=0}^{n-1} Tr_{e-i}

    It falls as an encoder has taken up what it takes up early (Huang et al., CVPR 2025).

    Args:
        traces: of the latest n + 1 epochs, the oldest first, shape ``(..., n + 1)``; 0 for epochs
            before the first.

    Returns:
        Shape ``(...)``; 0 where there is no information at all.

    >>> prime_indicator(torch.tensor([0.0, 0.0, 3.0, 1.0]))
    tensor(0.2500)
    """
    now, before = traces[..., 1:].mean(dim=-1), traces[..., :-1].mean(dim=-1)
    return torch.where(now > 0, (now - before) / torch.where(now > 0, now, 1), 0.0)


def score_gap(scores: Tensor) -> Tensor:
    r"""By how much each modality is ahead of the others.

    .. math:: \tanh\Big( s_m - \frac{1}{M-1} \sum_{j \ne m} s_j \Big)

    With two modalities :math:`\tanh(s_{strong} - s_{weak})` for the stronger (Huang et al., CVPR
    2025).

    Args:
        scores: sums over the batch of the probability of the true class, shape ``(M,)``. NaN for a
            modality that is not there: the others are compared without it.

    Returns:
        Shape ``(M,)``; NaN where there is nothing to compare.

    >>> score_gap(torch.tensor([3.0, 2.0]))
    tensor([ 0.7616, -0.7616])
    """
    there = scores.isfinite()
    known = torch.where(there, scores, 0)
    others = (known.sum() - known) / (there.sum() - 1).clamp(min=1)
    return torch.tanh(scores - others).masked_fill(~there | (there.sum() < 2), math.nan)


def holding_strength(
    gaps: Tensor, indicators: Tensor, strength: Tensor, threshold: float
) -> Tensor:
    r"""Strength of the pull towards where an encoder was when the epoch began.

    .. math:: \beta_m = c_m e^{gap_m} \text{ if } gap_m > 0 \text{ and } k > K \text{, else } 0

    (Huang et al., CVPR 2025.)

    Args:
        gaps: as from `score_gap`, shape ``(M,)``.
        indicators: k of each modality, as from `prime_indicator`, shape ``(M,)``.
        strength: the constant c of each modality, shape ``(M,)``.
        threshold: the smallest k of the prime learning window, K.

    Returns:
        Shape ``(M,)``.

    >>> holding_strength(
    ...     torch.tensor([0.5, -0.5]), torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.1]), 0.05
    ... )
    tensor([1.4838, 0.0000])
    """
    return torch.where((gaps > 0) & (indicators > threshold), strength * gaps.exp(), 0.0)
