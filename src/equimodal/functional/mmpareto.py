"""How MMPareto weighs the gradient of the joint loss against that of a unimodal loss."""

from __future__ import annotations

import torch
from torch import Tensor


def min_norm_weight(joint: Tensor, product: Tensor, unimodal: Tensor) -> Tensor:
    r"""Weight of the first of two gradients in their shortest convex combination.

    .. math:: a = \frac{\langle u, u \rangle - \langle g, u \rangle}{\|g - u\|^2}, \qquad
        a = 0.999 \text{ if } \langle g, u \rangle \ge \langle g, g \rangle, \quad
        a = 0.001 \text{ if } \langle g, u \rangle \ge \langle u, u \rangle

    The analytic solution for two tasks of MGDA (Sener and Koltun, NeurIPS 2018). Where one gradient
    alone is shortest, the other keeps a weight of 0.001.

    Args:
        joint: squared norm of the first gradient g, any shape.
        product: inner product of both, same shape.
        unimodal: squared norm of the second gradient u, same shape.

    Returns:
        The weight a of g, same shape; that of u is 1 - a.

    >>> min_norm_weight(torch.tensor(1.0), torch.tensor(-1.0), torch.tensor(4.0))
    tensor(0.7143)
    """
    distance = joint + unimodal - 2 * product
    inside = (unimodal - product) / torch.where(distance > 0, distance, 1)
    weight = torch.where(product >= unimodal, 0.001, inside)
    return torch.where(product >= joint, 0.999, weight)


def restoring_factor(norm: Tensor, reference: Tensor) -> Tensor:
    r"""Factor that makes a gradient at least as long as another.

    .. math:: \max\left(1, \|g_{sum}\| / \|h\|\right)

    Args:
        norm: of the gradient h, any shape, 0 or more.
        reference: norm of the plain sum, same shape.

    Returns:
        Same shape; 1 where the gradient is zero.

    >>> restoring_factor(torch.tensor([2.0, 0.5, 0.0]), torch.tensor([1.0, 1.0, 1.0]))
    tensor([1., 2., 1.])
    """
    longer = reference / torch.where(norm > 0, norm, 1)
    return torch.where(norm > 0, longer.clamp(min=1), 1.0)
