"""How much each modality's encoder should learn, from how sure and how loud its logits are."""

from __future__ import annotations

import torch
from torch import Tensor


def asymmetric_weights(
    magnitude: Tensor, entropy: Tensor, temperature: float, present: Tensor | None = None
) -> Tensor:
    r"""Weights of ARL: large for a modality that is certain and has little say in the logits.

    .. math:: w = \mathrm{softmax}_m(T \bar A_m B_m), \quad
        A_m = \frac{a_m}{\sum_j a_j}, \quad \bar A_m = \frac{1}{M-1} \sum_{j \ne m} A_j, \quad
        B_m \propto \frac{1}{\max(h_m / \sum_j h_j,\; 0.6 / M)}

    a is the mean over samples of :math:`\sum_c |u_{m,c}|`, h the mean entropy of softmax(u), and B
    sums to 1 (released code of Wei, Luo, Luo, ICCV 2025, defined for M = 2, where the bound is
    0.3).

    Args:
        magnitude: a, shape ``(M,)``, not negative.
        entropy: h, shape ``(M,)``, not negative.
        temperature: T.
        present: which modalities there are, shape ``(M,)``, bool; all by default. The others are
            left out of all sums and have weight 0.

    Returns:
        Weights of shape ``(M,)`` that sum to 1.

    >>> asymmetric_weights(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]), temperature=8.0)
    tensor([0.1192, 0.8808])
    """
    if present is None:
        present = torch.ones_like(magnitude, dtype=torch.bool)
    least = torch.finfo(magnitude.dtype).tiny
    number = present.to(magnitude.dtype).sum()  # an integer would give bounds in single precision
    magnitude, entropy = (x.masked_fill(~present, 0) for x in (magnitude, entropy))
    share = magnitude / magnitude.sum().clamp(min=least)
    others = (share.sum() - share) / (number - 1).clamp(min=1)
    uncertainty = (entropy / entropy.sum().clamp(min=least)).maximum(0.6 / number.clamp(min=1))
    certainty = uncertainty.reciprocal().masked_fill(~present, 0)
    certainty = certainty / certainty.sum().clamp(min=least)
    exponents = (temperature * others * certainty).masked_fill(~present, -torch.inf)
    return exponents.softmax(dim=0).masked_fill(~present, 0)
