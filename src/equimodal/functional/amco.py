"""Adaptive masks: which modality a model leans on, and how much of its feature is masked.

Zhou et al., ICASSP 2023.
"""

from __future__ import annotations

import math

from torch import Tensor


def mask_rate(epoch: int, ramp: float) -> float:
    r"""Share of a feature that is masked; it grows with the epochs and stays at 1.

    .. math:: p = \sin\left(\frac{\pi}{2} \min\left(1, \frac{e}{E}\right)\right)

    Args:
        epoch: e, counted from 0.
        ramp: E, epochs until the rate is 1.

    >>> [round(mask_rate(epoch, ramp=3), 3) for epoch in range(5)]
    [0.0, 0.5, 0.866, 1.0, 1.0]
    """
    return math.sin(math.pi / 2 * min(1.0, epoch / ramp))


def reliance(logits: Tensor) -> Tensor:
    r"""How much of the joint softmax falls to each modality.

    .. math:: a_{mi} = \sum_c \frac{\exp u_{mic}}{\sum_{j, c'} \exp u_{jic'}}

    Args:
        logits: unimodal logits u, shape ``(M, B, C)``.

    Returns:
        Shape ``(M, B)``; the sum over the modalities is 1.

    >>> import torch
    >>> reliance(torch.tensor([[[0.0, 0.0]], [[0.0, math.log(5.0)]]]))
    tensor([[0.2500],
            [0.7500]])
    """
    return logits.logsumexp(dim=2).softmax(dim=0)


def unmasked(numbers: Tensor, rate: float) -> Tensor:
    r"""Choose which units of a feature stay: all but a share of them, and one at least.

    Of U units :math:`\min(\lfloor p U \rfloor, U - 1)` are masked: those with the smallest numbers.

    Args:
        numbers: random numbers, shape ``(U,)``.
        rate: p, from 0 to 1.

    Returns:
        Shape ``(U,)``, bool.

    >>> import torch
    >>> unmasked(torch.tensor([0.3, 0.9, 0.1, 0.5]), 0.5)
    tensor([False,  True, False,  True])
    >>> unmasked(torch.tensor([0.3, 0.9, 0.1, 0.5]), 1.0)
    tensor([False,  True, False, False])
    """
    units = len(numbers)
    masked = min(int(rate * units + 1e-9), units - 1)  # sin(pi / 6) is a little less than a half
    return numbers.argsort().argsort() >= masked
