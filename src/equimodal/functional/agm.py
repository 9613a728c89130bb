"""What each modality answers, and how AGM scales the gradient that flows into the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equimodal.functional.precision import at_least_single
from equimodal.functional.valuation import shapley_values


def shapley_responses(logits: Tensor) -> Tensor:
    r"""Response of every modality: its Shapley value of the logits, without the empty coalition.

    .. math:: o_m = \sum_{S \ni m} \frac{(|S| - 1)! \, (M - |S|)!}{M!}
        \left( F(S) - F(S \setminus \{m\}) \right), \quad F(\emptyset) = 0

    With two modalities :math:`o_1 = \tfrac{1}{2} (F(1, 2) - F(2) + F(1))`. The responses sum to the
    logits of all modalities (Li et al., ICCV 2023).

    Args:
        logits: F of every coalition that is not empty, shape ``(2**M - 1, ...)``. Entry i holds
            modality m if bit m of i + 1 is set: the last has all.

    Returns:
        Shape ``(M, ...)``.

    >>> shapley_responses(torch.tensor([1.0, 3.0, 5.0]))  # of the first, the second, both
    tensor([1.5000, 3.5000])
    """
    logits = at_least_single(logits)
    return shapley_values(torch.cat([torch.zeros_like(logits[:1]), logits]))


def circle_weights(circle: Sequence[int]) -> tuple[list[int], Tensor]:
    r"""Weights of the coalitions that are arcs of a circle of the modalities.

    .. math:: o_m = \frac{1}{2M} \sum_{\pi} \left( F(\pi_{<m} \cup \{m\}) - F(\pi_{<m}) \right)

    over the 2M orders of joining that begin anywhere on the circle and go round it either way. Each
    modality joins at every place twice, so that the responses sum to the logits of all; over random
    circles their mean is the Shapley value. M (M - 1) coalitions in place of 2^M - 2.

    Args:
        circle: the numbers from 0 to M - 1, in the order of the circle; three or more.

    Returns:
        The arcs, each as a number of which bit m is set if it holds modality m; and the weights of
        their logits, and last of those of all modalities, shape ``(M, arcs + 1)``, float64.

    >>> arcs, weights = circle_weights([0, 1, 2])
    >>> arcs
    [1, 3, 2, 6, 4, 5]
    >>> weights.sum(dim=0).abs() < 1e-12
    tensor([ True,  True,  True,  True,  True,  True, False])
    """
    size = len(circle)
    everything = 2**size - 1
    arcs = [
        sum(1 << circle[(start + step) % size] for step in range(length))
        for start in range(size)
        for length in range(1, size)
    ]
    place = {number: index for index, number in enumerate([*arcs, everything])}
    weights = [[0.0] * len(place) for _ in circle]
    for index, modality in enumerate(circle):
        for length in range(size):
            for before in (index - length, index + 1):  # the arc that it joins, on either side
                arc = sum(1 << circle[(before + step) % size] for step in range(length))
                weights[modality][place[arc | 1 << modality]] += 1 / (2 * size)
                if arc:
                    weights[modality][place[arc]] -= 1 / (2 * size)
    return arcs, torch.tensor(weights, dtype=torch.float64)


def confidence_ratio(losses: Tensor) -> Tensor:
    r"""How much better each modality does than the others, by their losses.

    .. math:: r_m = \exp\left( \frac{1}{M-1} \sum_{j \ne m} (s_j - s_m) \right)

    Above 1 for a modality that does better (Li et al., ICCV 2023).

    Args:
        losses: mean loss s of every modality, shape ``(M,)``. NaN stands for a modality that is
            not there: the others are compared without it.

    Returns:
        Shape ``(M,)``; NaN where there is nothing to compare.

    >>> confidence_ratio(torch.tensor([0.0, math.log(2.0)]))
    tensor([2.0000, 0.5000])
    """
    there = losses.isfinite()
    known = torch.where(there, losses, 0)
    others = (known.sum() - known) / (there.sum() - 1)
    largest = math.log(torch.finfo(losses.dtype).max)
    ratio = (others - losses).clamp(max=largest).exp()
    return ratio.masked_fill(~there | (there.sum() < 2), math.nan)


def agm_coefficient(ratio: Tensor, reference: Tensor, alpha: float, cap: float) -> Tensor:
    r"""Factor on the gradient that flows into a response (Li et al., ICCV 2023).

    .. math:: \kappa = \exp(\alpha \min(\tau - r, cap))

    Below 1 for a modality that is further ahead than it used to be.

    Args:
        ratio: r of this step, any shape.
        reference: :math:`\tau`, the same of the running means, same shape.
        alpha: how strongly a difference counts.
        cap: the largest difference that counts.

    Returns:
        Same shape; 1 where a ratio is NaN.

    >>> agm_coefficient(torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.0]), alpha=1.0, cap=10.0)
    tensor([0.3679, 1.6487])
    """
    coefficient = (alpha * (reference - ratio).clamp(max=cap)).exp()
    return torch.where(coefficient.isnan(), 1.0, coefficient)
