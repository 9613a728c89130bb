"""MWAM: how much of an input lies in low frequencies, and how much an encoder then learns.

Lu et al., ICLR 2026.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_transform(size: int, like: Tensor) -> Tensor:
    """Return the orthonormal matrix of the discrete cosine transform (type II).

    Args:
        size: N.
        like: a tensor of the dtype and on the device of the result.

    Returns:
        Shape ``(N, N)``; row k is the wave of frequency k.

    >>> cosine_transform(2, torch.zeros(()))
    tensor([[ 0.7071,  0.7071],
            [ 0.7071, -0.7071]])
    """
    places = torch.arange(size, dtype=like.dtype, device=like.device)
    waves = (math.pi / size * (places + 0.5) * places[:, None]).cos() * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def frequency_ratios(values: Tensor, patch: int = 8, window: int = 2) -> Tensor:
    r"""Ratio of low to high frequencies of every sample, from patches of its input.

    .. math:: r = \mathrm{mean} \Big| \frac{F_{low}}{F_{high} + 10^{-6}} \Big|

    Maps ``(B, C, H, W)``, and clips ``(B, C, T, H, W)`` frame by frame, are cut into squares, and
    their two-dimensional transforms F compared: the `window` lowest frequencies of both directions
    with the highest, the lowest with the highest of all. Series ``(B, C, T)`` and vectors are
    cut along their last dimension. What is left over at the end is left out.

    Args:
        values: the input, floating point.
        patch: edge of a patch; at most the length that there is.
        window: how many of the lowest and of the highest frequencies; at most half of the patch.

    Returns:
        Shape ``(B,)``.

    >>> smooth, rough = torch.tensor([[1.0, 2.0, 4.0, 6.0]]), torch.tensor([[1.0, 4.0, 2.0, 6.0]])
    >>> frequency_ratios(torch.cat([smooth, rough])) > 10
    tensor([ True, False])
    """
    if values.ndim < 4:
        rows, row = _patches(values, patch)
        wide = max(1, min(window, row // 2))
        found = rows @ cosine_transform(row, values).T
        low, high = found[..., :wide], found[..., -wide:].flip(-1)
    else:
        columns, column = _patches(values.flatten(1, -3), patch)  # (B, maps, H, across, column)
        squares, row = _patches(columns.movedim(2, -1), patch)  # (..., across, column, down, row)
        found = squares @ cosine_transform(row, values).T
        found = cosine_transform(column, values) @ found.movedim(-3, -2)
        tall, wide = (max(1, min(window, edge // 2)) for edge in (column, row))
        low, high = found[..., :tall, :wide], found[..., -tall:, -wide:].flip(-2, -1)
    return (low / (high + 1e-6)).abs().flatten(1).mean(dim=1)


def _patches(values: Tensor, patch: int) -> tuple[Tensor, int]:
    """Cut the last dimension: shape ``(..., pieces, edge)``, and the edge."""
    length = values.shape[-1]
    edge = min(patch, length)
    cut = values[..., : length // edge * edge]
    return cut.reshape(*cut.shape[:-1], -1, edge), edge


def frequency_factors(ratios: Tensor, bank: Tensor) -> Tensor:
    r"""Factor on the gradient of every encoder: small for inputs of mostly low frequencies.

    .. math:: c_m = 1.5 - \sigma\Big(10 \Big(\frac{r_m}{\mathrm{mean}_j\, b_j} - 1\Big)\Big)

    Args:
        ratios: r of this step, shape ``(M,)``; NaN for a modality that is not there.
        bank: their running means b, this step included, shape ``(M,)``; 0 for one never seen.

    Returns:
        Shape ``(M,)``, between 0.5 and 1.5; 1 for a modality that is not there.

    >>> frequency_factors(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor([1.0000, 0.5000])
    """
    mean = bank.sum() / (bank > 0).sum().clamp(min=1)
    factors = 1.5 - torch.sigmoid(10 * (ratios / (mean + 1e-6) - 1))
    return factors.nan_to_num(1.0)
