"""Standardisation with what the training split alone tells."""

from __future__ import annotations

import torch
from torch import Tensor


def standardised(feature: Tensor, training: Tensor) -> Tensor:
    """Return the feature with mean 0 and variance 1 per channel on the training samples.

    A channel that is constant on the training samples is centred and not divided.

    Args:
        feature: shape ``(N, C, ...)``; the moments are taken over the samples and the trailing
            axes.
        training: which samples may be looked at, bool, shape ``(N,)``.

    Returns:
        A float32 tensor of the feature's shape, worked out in float64.

    >>> feature = torch.tensor([[1.0, 5.0], [3.0, 5.0], [9.0, 6.0]])
    >>> standardised(feature, torch.tensor([True, True, False])).tolist()
    [[-1.0, 0.0], [1.0, 0.0], [7.0, 1.0]]
    """
    exact = feature.double()
    known = exact.index_select(0, training.nonzero().flatten())
    axes = [0, *range(2, feature.ndim)]
    var, mean = torch.var_mean(known, dim=axes, correction=0, keepdim=True)
    # Equality of the extremes, because a constant column of large numbers has a variance that
    # rounding keeps from being 0.
    constant = known.amin(axes, keepdim=True) == known.amax(axes, keepdim=True)
    return ((exact - mean) / torch.where(constant, 1.0, var.sqrt())).float()
