"""Weights of losses, from how each head generalises and overfits (Gradient-Blending)."""

from __future__ import annotations

import torch
from torch import Tensor


def blending_weights(
    train_before: Tensor,
    held_out_before: Tensor,
    train_after: Tensor,
    held_out_after: Tensor,
    floor: float = 1e-4,
) -> Tensor:
    r"""Weights of Gradient-Blending (Wang, Tran and Feiszli, CVPR 2020).

    .. math::
        w_i = \frac{\Delta G_i / \Delta O_i^2}{\sum_j \Delta G_j / \Delta O_j^2}, \quad
        \Delta G = L^V_N - L^V_{N+n}, \quad
        \Delta O = (L^V_{N+n} - L^T_{N+n}) - (L^V_N - L^T_N)

    A head is trained from epoch N for n more epochs. The gain :math:`\Delta G` is by how much its
    held-out loss falls, the overfitting :math:`\Delta O` by how much the gap to its training loss
    grows.

    A head that gains nothing, or whose losses are not finite, gets 0; if that holds for all of
    them, nothing is known, and their weights are equal.

    Args:
        train_before: mean training losses per sample at epoch N, shape ``(K,)``.
        held_out_before: mean held-out losses at epoch N, shape ``(K,)``.
        train_after: as `train_before`, n epochs later.
        held_out_after: as `held_out_before`, n epochs later.
        floor: the smallest :math:`|\Delta O|` that is divided by, positive.

    Returns:
        Weights of shape ``(K,)``, 0 or more, that add up to 1.

    >>> before, after = torch.tensor([1.0, 1.0]), torch.tensor([0.8, 0.6])
    >>> blending_weights(before, before, after - 0.1, after)
    tensor([0.3333, 0.6667])
    >>> blending_weights(before, before, after - torch.tensor([0.1, 0.2]), after)
    tensor([0.6667, 0.3333])
    """
    gain = held_out_before - held_out_after
    overfitting = (held_out_after - train_after) - (held_out_before - train_before)
    # In units of the floor: its square would underflow where it is small.
    relative = overfitting.abs().clamp(min=floor) / floor
    worth = gain.clamp(min=0) / relative.square()
    worth = torch.where(worth.isfinite(), worth, 0)
    total = worth.sum()
    equal = torch.full_like(worth, 1 / worth.shape[0])
    return torch.where(total > 0, worth / total.clamp(min=torch.finfo(total.dtype).tiny), equal)
