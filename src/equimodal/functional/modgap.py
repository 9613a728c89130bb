"""Closing the gap between modalities: features of one sample together, samples apart."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric_contrast(
    first: Tensor, second: Tensor, temperature: float, counted: Tensor | None = None
) -> Tensor:
    r"""InfoNCE between the features of two modalities, in both directions.

    .. math::
        \frac{1}{2B} \sum_i -\log \frac{e^{a_i^\top b_i / \tau}}{\sum_j e^{a_i^\top b_j / \tau}}
        - \log \frac{e^{a_i^\top b_i / \tau}}{\sum_j e^{a_j^\top b_i / \tau}}

    Args:
        first: unit vectors a, shape ``(B, D)``.
        second: unit vectors b, shape ``(B, D)``.
        temperature: :math:`\tau`, above 0.
        counted: which samples take part, shape ``(B,)``, bool; all by default.

    Returns:
        Shape ``()``; 0 if no sample takes part.

    >>> eye = torch.eye(2)
    >>> symmetric_contrast(eye, eye, 1.0)  # log(1 + 1 / e)
    tensor(0.3133)
    """
    products = first @ second.T / temperature
    if counted is not None:
        both = counted[:, None] & counted
        products = products.masked_fill(~both, torch.finfo(products.dtype).min)
    there = products.log_softmax(dim=1).diagonal() + products.log_softmax(dim=0).diagonal()
    if counted is None:
        return -there.mean() / 2
    return -torch.where(counted, there, 0).sum() / counted.sum().clamp(min=1) / 2


def uniformity(vectors: Tensor, counted: Tensor | None = None) -> Tensor:
    r"""How evenly unit vectors lie on the sphere: smaller is more evenly.

    .. math:: \log \mathrm{mean}_{i < j}\, e^{-2 \|c_i - c_j\|^2}

    (Wang and Isola, ICML 2020.)

    Args:
        vectors: c, shape ``(B, D)``.
        counted: which take part, shape ``(B,)``, bool; all by default.

    Returns:
        Shape ``()``; 0 for fewer than two.

    >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor(-8.)
    """
    first, second = torch.triu_indices(len(vectors), len(vectors), 1, device=vectors.device)
    exponents = -2 * (vectors[first] - vectors[second]).square().sum(dim=1)
    if counted is not None:
        exponents = exponents.masked_fill(~(counted[first] & counted[second]), -torch.inf)
    many = exponents.isfinite().sum().to(exponents.dtype)
    # The gradient of a logsumexp of nothing is NaN: one number that counts stands in.
    nothing = torch.where(many > 0, -torch.inf, 0.0).to(exponents)
    value = torch.cat([exponents, nothing[None]]).logsumexp(dim=0) - many.clamp(min=1).log()
    return torch.where(many > 0, value, 0)
