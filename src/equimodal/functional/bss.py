"""BSS: how hard a sample is, how many are easy enough by now, and a random order of all."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def agreement(logits: Tensor, present: Tensor | None = None) -> Tensor:
    r"""Mean cosine between what two modalities predict of a sample.

    .. math:: \frac{2}{M (M - 1)} \sum_{a < b} \cos(p_a, p_b), \quad p_m = \mathrm{softmax}(u_m)

    Args:
        logits: unimodal logits, shape ``(M, B, C)``.
        present: which samples have a modality, shape ``(M, B)``, bool; all by default.

    Returns:
        0 to 1, shape ``(B,)``: the mean over pairs that a sample has, NaN where it has none.

    >>> agreement(torch.tensor([[[9.0, 0.0], [9.0, 0.0]], [[9.0, 0.0], [0.0, 9.0]]]))
    tensor([1.0000e+00, 2.4682e-04])
    """
    p = logits.softmax(dim=2)
    pairs = list(itertools.combinations(range(len(p)), 2))
    cosines = torch.stack([torch.cosine_similarity(p[a], p[b], dim=1) for a, b in pairs])
    if present is None:
        return cosines.mean(dim=0)
    both = torch.stack([present[a] & present[b] for a, b in pairs])
    return cosines.masked_fill(~both, torch.nan).nanmean(dim=0)


def difficulty(losses: Tensor, similarities: Tensor) -> Tensor:
    r"""Large for samples with a large loss of which the modalities predict different things.

    .. math:: d_i = \mathrm{scaled}(\ell)_i - \mathrm{scaled}(s)_i

    The smallest of all samples is scaled to 0, the largest to 1. From the released code of Guan et
    al. (IJCAI 2025).

    Args:
        losses: shape ``(N,)``; NaN where unknown.
        similarities: shape ``(N,)``; NaN where unknown.

    Returns:
        -1 to 1, shape ``(N,)``. What is unknown counts as the mean of what is known.

    >>> difficulty(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.9, 0.7, 0.5]))
    tensor([-1.0000, -0.2500,  1.0000])
    """
    return _scaled(losses) - _scaled(similarities)


def easy_part(epoch: int, start: float, epochs: int) -> float:
    r"""Share of the samples that a curriculum has reached.

    .. math:: \min\Big(1, \sqrt{(1 - \lambda_0^2) (e + 1) / T + \lambda_0^2}\Big)

    Args:
        epoch: e, counted from 0.
        start: :math:`\lambda_0`, 0 to 1.
        epochs: T, 1 or more.

    >>> round(easy_part(0, 0.1, 40), 4), easy_part(39, 0.1, 40), easy_part(99, 0.1, 40)
    (0.1864, 1.0, 1.0)
    """
    return min(1.0, math.sqrt((1 - start**2) * (epoch + 1) / epochs + start**2))


def weighted_order(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw all samples one after the other, each with a probability in proportion to its weight.

    Exponential times that are divided by the weights come in this order; no sum of weights is
    computed anew for every draw.

    Args:
        weights: above 0, shape ``(N,)``.
        generator: of the random numbers, on the CPU.

    Returns:
        A permutation of the positions, shape ``(N,)``, int64.

    >>> weighted_order(torch.tensor([1e-9, 1e9, 1.0]), torch.Generator().manual_seed(0))
    tensor([1, 2, 0])
    """
    times = torch.empty(len(weights), dtype=torch.float64).exponential_(generator=generator)
    return (times / weights.double()).argsort()


def _scaled(values: Tensor) -> Tensor:
    known = ~values.isnan()
    low = torch.where(known, values, math.inf).amin()
    span = torch.where(known, values, -math.inf).amax() - low
    scaled = (values - low) / torch.where(span > 0, span, 1)
    mean = scaled.nanmean().nan_to_num(0.0)  # nothing at all is known
    return torch.where(known, scaled, mean)
