"""Which modality a sample is left with: the equations of Data Remixing."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def separability(logits: Tensor) -> Tensor:
    r"""How far a prediction is from knowing nothing (Ma et al., ICML 2025).

    .. math:: \mathrm{KL}(p \,\|\, u) = \log_2 C + \sum_c p_c \log_2 p_c, \quad
        p = \mathrm{softmax}(\text{logits})

    Args:
        logits: shape ``(..., C)``.

    Returns:
        Bits, shape ``(...)``: 0 for a uniform prediction, :math:`\log_2 C` for a certain one.

    >>> separability(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
    tensor([0., 1.])
    """
    logs = torch.log_softmax(logits, dim=-1)
    classes = logits.shape[-1]
    return (math.log(classes) + (logs.exp() * logs).sum(dim=-1)) / math.log(2)


def least_separable(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Which modality separates each sample worst; of several that do, the last.

    Args:
        logits: unimodal logits, shape ``(M, B, C)``.
        present: which samples have a modality, shape ``(M, B)``, bool; all by default. One that is
            missing is chosen only where all are.

    Returns:
        Positions of the modalities, shape ``(B,)``, int64.

    >>> least_separable(torch.tensor([[[5.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]]))
    tensor([1, 1])
    """
    found = separability(logits)
    if present is not None:
        found = found.masked_fill(~present, math.inf)
    return len(logits) - 1 - found.flip(0).argmin(dim=0)
