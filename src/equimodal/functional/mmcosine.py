"""Logits that are cosines, one modality at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from equimodal.functional.precision import at_least_single


def unit_rows(rows: Tensor) -> Tensor:
    r"""Divide every row by its Euclidean norm: :math:`x / \lVert x \rVert`.

    A row of zeros has no direction: it stays zero, and its gradient is finite.

    Args:
        rows: shape ``(..., D)``; half precision is raised to single.

    Returns:
        A tensor of the same shape.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    rows = at_least_single(rows)
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1)


def cosine_logits(feature: Tensor, weight: Tensor, scale: float) -> Tensor:
    r"""Scaled cosines between features and the class vectors of one modality.

    .. math:: u_{ic} = s \cos(z_i, W_c) = s \frac{z_i W_c^\top}{\lVert z_i \rVert
        \lVert W_c \rVert}

    The fused logits of MMCosine are their sum over modalities (Xu et al., ICASSP 2023).

    Args:
        feature: z, shape ``(B, ..., D)``.
        weight: W, shape ``(C, D)``; every class vector is normalised by itself.
        scale: s, positive.

    Returns:
        A tensor of shape ``(B, ..., C)`` with values between -s and s.

    >>> feature, weight = torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0], [-1.0, 0.0]])
    >>> cosine_logits(feature, weight, scale=10.0)
    tensor([[ 10., -10.]])
    """
    return scale * F.linear(unit_rows(feature), unit_rows(weight))
