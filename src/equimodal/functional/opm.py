"""On-the-fly prediction modulation: how likely a feature is dropped, and what scales the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def drop_probability(ratio: Tensor, base: float, strength: float) -> Tensor:
    r"""Probability of dropping a modality that is ahead (Wei et al., TPAMI 2024).

    .. math:: q = \min(1, q_b (1 + \lambda \tanh(\rho - 1))) \text{ if } \rho > 1 \text{, else } 0

    It jumps at :math:`\rho = 1`, from 0 to the base. The modality with the lowest score is never
    dropped.

    Args:
        ratio: discrepancy ratios, any shape; an undefined one (NaN) is never dropped.
        base: :math:`q_b`.
        strength: :math:`\lambda`.

    >>> drop_probability(torch.tensor([0.5, 1.0, 2.0]), base=0.5, strength=0.5)
    tensor([0.0000, 0.0000, 0.6904])
    """
    ahead = base * (1 + strength * torch.tanh(ratio - 1))
    return torch.where(ratio > 1, ahead.clamp(0, 1), 0.0)


def drop_scale(probabilities: Tensor, widths: Sequence[int]) -> Tensor:
    r"""Factor on all features that makes up for the values that are dropped (Wei et al., 2024).

    .. math:: \frac{1}{1 - \Theta}, \quad \Theta = \frac{\sum_m d_m q_m}{\sum_m d_m}

    Args:
        probabilities: q, shape ``(M,)``, not all of them 1.
        widths: d, the number of values of each feature, M of them.

    Returns:
        Shape ``()``, 1 or more.

    >>> drop_scale(torch.tensor([0.0, 0.5]), [1, 3])
    tensor(1.6000)
    """
    total = sum(widths)
    shares = [q * (width / total) for q, width in zip(probabilities.unbind(), widths, strict=True)]
    return 1 / (1 - torch.stack(shares).sum())
