"""How CGGM turns the progress of classifiers into factors on gradients, and into a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def correctness(logits: Tensor, target: Tensor) -> Tensor:
    """Share of every sample's predictions that are right.

    Args:
        logits: shape ``(B, C, ...)`` where the target holds classes, else the target's shape.
        target: classes, integer, shape ``(B, ...)``: the largest logit must be that of the class.
            Otherwise labels or values, shape ``(B, ...)`` floating point or as many integers as
            logits: a logit must be above 0 where they are.

    Returns:
        Shape ``(B,)``, in the dtype of the logits: 0 or 1 for a single prediction.

    >>> correctness(torch.tensor([[0.1, 2.0], [0.3, 0.2]]), torch.tensor([1, 1]))
    tensor([1., 0.])
    >>> correctness(torch.tensor([[0.5], [-2.0]]), torch.tensor([[1.7], [0.3]]))  # signs
    tensor([1., 0.])
    """
    if target.is_floating_point() or target.shape == logits.shape:
        right = (logits > 0) == (target.reshape(logits.shape) > 0)
    else:
        right = logits.argmax(dim=1) == target
    return right.to(logits.dtype).reshape(len(right), -1).mean(dim=1)


def cggm_coefficients(improvements: Tensor) -> Tensor:
    r"""Factor for every modality: how much of the progress the others made.

    .. math:: c_m = \frac{\Sigma - \Delta_m}{\Sigma}, \quad \Sigma = 10^{-8} + \sum_j \Delta_j

    (Guo et al., NeurIPS 2024; the constant stands above and below, as in the released code.) It is
    not bounded: progress and regress may cancel out. Where nobody moved at all, it is 1.

    Args:
        improvements: change of each modality's accuracy, shape ``(M,)``. NaN where it is not known:
            the others are compared without it.

    Returns:
        Shape ``(M,)``; NaN where there is nothing to compare.

    >>> cggm_coefficients(torch.tensor([0.3, 0.1]))
    tensor([0.2500, 0.7500])
    >>> cggm_coefficients(torch.zeros(3))
    tensor([1., 1., 1.])
    """
    known = improvements.isfinite()
    total = torch.where(known, improvements, 0).sum() + 1e-8
    shares = (total - improvements) / total
    return shares.masked_fill(~known | (known.sum() < 2), math.nan)


def direction_loss(coefficients: Tensor, cosines: Tensor) -> Tensor:
    r"""Loss that turns the fused gradient towards that of the classifiers that count.

    .. math:: L_{gm} = \frac{1}{M} \left( \sum_m |c_m| - \sum_m c_m \cos_m \right)

    (Guo et al., NeurIPS 2024.)

    Args:
        coefficients: shape ``(M,)``; NaN where there is none: M counts the others.
        cosines: between the gradients of each classifier and of the fusion, shape ``(M,)``.

    Returns:
        Shape ``()``; 0 or more.

    >>> direction_loss(torch.tensor([0.25, 0.75]), torch.tensor([1.0, 0.0]))
    tensor(0.3750)
    """
    known = ~coefficients.isnan()
    coefficients = torch.where(known, coefficients, 0)
    misdirected = coefficients.abs().sum() - (coefficients * cosines).sum()
    return misdirected / known.sum().clamp(min=1)
