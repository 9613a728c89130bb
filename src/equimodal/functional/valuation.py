"""What each modality contributes to each prediction, and how often a sample should come again."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def coalitions(modalities: int) -> Tensor:
    """Return every subset of the modalities, bool, shape ``(2**M, M)``.

    Row s holds modality m if bit m of s is set: the first is empty, the last has all of them.

    >>> coalitions(2).int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    numbers = torch.arange(2**modalities)[:, None]
    return (numbers >> torch.arange(modalities)) & 1 == 1


def shapley_values(values: Tensor) -> Tensor:
    r"""Shapley values: what each modality adds to a subset, on average over all orders of joining.

    .. math:: \phi_m = \sum_{S \not\ni m} \frac{|S|! \, (M - |S| - 1)!}{M!}
        \left( v(S \cup \{m\}) - v(S) \right)

    Values are weighted with whole numbers and divided once, so that integer values give the float
    that is nearest to the fraction: a contribution of 1 is 1, and not a little less.

    Args:
        values: v of every subset in the order of `coalitions`, shape ``(2**M, ...)``.

    Returns:
        Shape ``(M, ...)``, floating point; they sum to v(all) - v(none).

    Source: Shapley, 1953; as used by Wei et al., CVPR 2024.

    >>> shapley_values(torch.tensor([0, 1, 0, 2]))  # the first alone is right, the second is not
    tensor([1.5000, 0.5000])
    """
    modalities = values.shape[0].bit_length() - 1
    weights = _shapley_weights(modalities).to(values)
    flat = values.reshape(len(values), -1)
    if flat.is_floating_point():
        total = weighted_sums(weights, flat)
    else:  # whole numbers, which no device multiplies as matrices
        total = (weights[:, :, None] * flat).sum(dim=1)
    return total.view(modalities, *values.shape[1:]) / math.factorial(modalities)


def _shapley_weights(modalities: int) -> Tensor:
    """Return the weights of the subsets times M!, whole numbers, shape ``(M, 2**M)``."""
    members = coalitions(modalities)
    sizes = members.sum(dim=1).tolist()
    factorial = [math.factorial(number) for number in range(modalities + 1)]
    joining = [factorial[max(n - 1, 0)] * factorial[modalities - n] for n in sizes]
    staying = [-factorial[n] * factorial[max(modalities - n - 1, 0)] for n in sizes]
    return torch.where(members, torch.tensor(joining)[:, None], torch.tensor(staying)[:, None]).T


def weighted_sums(weights: Tensor, values: Tensor) -> Tensor:
    """Return several weighted sums of values, in the precision of these, also under autocast.

    Args:
        weights: shape ``(M, K)``.
        values: shape ``(K, ...)``, floating point.

    Returns:
        Shape ``(M, ...)``.

    >>> weighted_sums(torch.tensor([[1.0, 1.0], [0.5, 0.5]]), torch.tensor([1.0, 3.0]))
    tensor([4., 2.])
    """
    with torch.autocast(values.device.type, enabled=False):
        sums: Tensor = torch.tensordot(weights.to(values), values, dims=1)
    return sums


def contributions(correct: Tensor) -> Tensor:
    r"""Contribution of every modality to the prediction of every sample.

    .. math:: v(S) = |S| \cdot \mathbb 1[\text{the prediction from } S \text{ is right}]

    and the Shapley values of it (Wei et al., CVPR 2024). With two modalities they are -0.5, 0, 0.5,
    1 or 1.5; a modality that does its share has 1.

    Args:
        correct: whether the prediction from each subset is right, bool, shape ``(2**M - 1, B)``:
            the subsets in the order of `coalitions`, without the empty one.

    Returns:
        Shape ``(M, B)``, float32.

    >>> contributions(torch.tensor([[True], [True], [True]])).tolist()
    [[1.0], [1.0]]
    >>> contributions(torch.tensor([[True], [False], [True]])).tolist()  # the second is idle
    [[1.5], [0.5]]
    """
    sizes = coalitions((correct.shape[0] + 1).bit_length() - 1).sum(dim=1)[1:, None]
    values = torch.where(correct, sizes.to(correct.device), 0)
    return shapley_values(torch.cat([torch.zeros_like(values[:1]), values])).float()


def repetitions(contribution: Tensor) -> Tensor:
    r"""How often a sample comes again with one modality alone.

    .. math:: n = 0 \text{ if } \phi \ge 1, \quad 1 \text{ if } 0.4 < \phi < 1, \quad
        2 \text{ if } -0.1 < \phi \le 0.4, \quad 3 \text{ if } \phi \le -0.1

    The thresholds are those of the released code of Wei et al., CVPR 2024.

    Args:
        contribution: of that modality, of any shape.

    Returns:
        int64, of the same shape.

    >>> repetitions(torch.tensor([1.5, 1.0, 0.5, 0.0, -0.5]))
    tensor([0, 0, 1, 2, 3])
    """
    below = torch.stack([contribution < 1, contribution <= 0.4, contribution <= -0.1])
    return below.sum(dim=0)


def resampling_rate(means: Tensor, alpha: float) -> Tensor:
    r"""Share of the samples that come again with one modality alone.

    .. math:: r_m = \min\left(1, \tfrac{2}{3}\, \alpha\,
        (\max_j \bar\phi_j - \bar\phi_m) \right)

    With two modalities this is the linear rate of the released code of Wei et al., CVPR 2024, for
    the one that is behind: :math:`\tfrac{2}{3} \alpha |g_1 - g_2|` with :math:`g_m = 1 -
    \bar\phi_m`. Each of several is held against the one that contributes most.

    Args:
        means: mean contribution of each modality, shape ``(M,)``.
        alpha: how strongly a gap counts.

    Returns:
        Shape ``(M,)``: 0 for the modality that contributes most.

    >>> resampling_rate(torch.tensor([1.25, 0.5]), alpha=1.0)
    tensor([0.0000, 0.5000])
    """
    return (2 / 3 * alpha * (means.max() - means)).clamp(max=1)
