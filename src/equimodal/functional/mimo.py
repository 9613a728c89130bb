"""A smooth maximum of losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def smooth_maximum(losses: Tensor, smoothing: float) -> Tensor:
    r"""Smooth approximation of the largest of several losses.

    .. math:: \mu \log \frac{1}{M} \sum_m \exp(L_m / \mu)

    It lies between the mean and the maximum, and comes close to them as :math:`\mu` grows and
    shrinks. Its gradient is that of the losses weighted by :math:`\mathrm{softmax}(L / \mu)`.

    This is our reading of the abstract of MIMO (Fernando et al., arXiv 2511.06686, 2025), not
    verified against the paper.

    Args:
        losses: shape ``(..., M)``, floating point.
        smoothing: the parameter mu, positive, in units of the losses.

    Returns:
        Shape ``(...)``.

    >>> smooth_maximum(torch.tensor([1.0, 3.0]), smoothing=0.1)
    tensor(2.9307)
    >>> smooth_maximum(torch.tensor([1.0, 3.0]), smoothing=100.0)
    tensor(2.0050)
    """
    return smoothing * (torch.logsumexp(losses / smoothing, dim=-1) - math.log(losses.shape[-1]))
