"""OLM: how long the logits of every modality should be."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_pace(losses: Tensor, initial: Tensor) -> Tensor:
    r"""How much of its first loss each prediction has left, over the mean of all.

    .. math:: r_k = \frac{\ell_k / \ell_k^0}{\frac1K \sum_j \ell_j / \ell_j^0}

    Above 1 for one that has learned less than the others (Zong et al., IJCAI 2024).

    Args:
        losses: :math:`\ell`, shape ``(K,)``; NaN for one that is not there.
        initial: :math:`\ell^0`, shape ``(K,)``.

    Returns:
        Shape ``(K,)``; 1 for one that is not there.

    >>> relative_pace(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))
    tensor([0.5000, 1.5000])
    """
    left = losses / initial
    return (left / left.nanmean()).nan_to_num(1.0)


def norm_slope(
    norms: Tensor, coefficients: Tensor, pace: Tensor, counted: Tensor | None = None
) -> Tensor:
    r"""Derivative by the coefficients of the distance between norms and what they should be.

    .. math:: \sum_i \sum_k \Big| w_k n_{ik} - r_k \frac1K \sum_j w_j n_{ij} \Big|

    with the mean held fixed, as in GradNorm.

    Args:
        norms: n of the logits, shape ``(K, B)``.
        coefficients: w, shape ``(K,)``.
        pace: r, shape ``(K,)``: `relative_pace`.
        counted: which samples have logits k, shape ``(K, B)``, bool; all by default.

    Returns:
        Shape ``(K,)``, summed over the samples.

    >>> norm_slope(torch.tensor([[1.0], [3.0]]), torch.ones(2), torch.ones(2))
    tensor([-1.,  3.])
    """
    scaled = coefficients[:, None] * norms
    if counted is None:
        mean = scaled.mean(dim=0)
        return ((scaled - pace[:, None] * mean).sign() * norms).sum(dim=1)
    mean = torch.where(counted, scaled, 0).sum(dim=0) / counted.sum(dim=0).clamp(min=1)
    slopes = (scaled - pace[:, None] * mean).sign() * norms
    return torch.where(counted, slopes, 0).sum(dim=1)


def adam(
    gradient: Tensor, first: Tensor, second: Tensor, steps: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a step of Adam with its usual constants, and both moments after it.

    Args:
        gradient: any shape.
        first: mean of gradients so far, same shape.
        second: mean of squares so far, same shape.
        steps: number of this step, counted from 1.
        rate: the learning rate.

    >>> move, *_ = adam(torch.tensor([3.0]), torch.zeros(1), torch.zeros(1), 1, 0.1)
    >>> move
    tensor([-0.1000])
    """
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient.square()
    root = (second / (1 - 0.999**steps)).sqrt() + 1e-8
    return -rate * first / (1 - 0.9**steps) / root, first, second
