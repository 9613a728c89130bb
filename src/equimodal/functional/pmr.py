"""Class prototypes, the classifiers without parameters that they make, and PMR's weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def class_sums(features: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Sum of the features of each class, and how many there are: a prototype is their quotient.

    Args:
        features: shape ``(B, D)``.
        target: classes, shape ``(B,)``, int64. What is outside of 0 to C - 1 does not count.
        classes: number of classes C.

    Returns:
        Sums of shape ``(C, D)`` and counts of shape ``(C,)``, both in the dtype of the features.

    >>> class_sums(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, -100]), classes=2)
    (tensor([[3.],
            [0.]]), tensor([2., 0.]))
    """
    counted = (target >= 0) & (target < classes)
    member = F.one_hot(target.masked_fill(~counted, 0), classes) * counted[:, None]
    member = member.to(features.dtype)
    return member.T @ features, member.sum(dim=0)


def prototype_logits(features: Tensor, prototypes: Tensor, known: Tensor | None = None) -> Tensor:
    r"""Logits of the classifier that prototypes make (Fan et al., CVPR 2023).

    .. math:: d_{ik} = -\lVert z_i - c_k \rVert_2

    Where a feature lies on a prototype, the gradient of the distance is taken as 0.

    Args:
        features: shape ``(B, D)``.
        prototypes: one for each class, shape ``(C, D)``.
        known: which classes have a prototype, shape ``(C,)``, bool; all by default. The logits of
            the others are ``-inf``.

    Returns:
        Shape ``(B, C)``.

    >>> prototype_logits(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[-5., -0.]])
    """
    if known is not None:
        prototypes = torch.where(known[:, None], prototypes, 0)  # 0 * NaN would reach the gradient
    # Differences, not products, which lose the digits of what lies close to a prototype.
    distances = torch.cdist(features, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
    return -distances if known is None else (-distances).masked_fill(~known, -math.inf)


def prototype_losses(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    r"""Cross-entropy of every sample under its distances to the prototypes.

    .. math:: \ell_i = -\log \mathrm{softmax}(d_i)_{y_i}

    Args:
        logits: from `prototype_logits`, shape ``(B, C)``.
        target: classes, shape ``(B,)``, int64.

    Returns:
        Losses of shape ``(B,)``, 0 where a sample does not count; and which samples count, shape
        ``(B,)``, bool: those whose class is one of 0 to C - 1, and has a prototype.

    >>> losses, counted = prototype_losses(torch.zeros(2, 4), torch.tensor([1, -100]))
    >>> losses, counted
    (tensor([1.3863, 0.0000]), tensor([ True, False]))
    """
    labelled = (target >= 0) & (target < logits.shape[-1])
    index = target.masked_fill(~labelled, 0)[:, None]
    counted = labelled & (logits.detach().gather(1, index)[:, 0] > -math.inf)
    losses = -F.log_softmax(logits, dim=-1).gather(1, index)[:, 0]
    return losses.masked_fill(~counted, 0), counted


def prototype_entropy(logits: Tensor) -> Tensor:
    r"""Entropy of the classes under the distances to their prototypes, shape ``(B,)``.

    .. math:: H_i = -\sum_k p_{ik} \log p_{ik}, \quad p_i = \mathrm{softmax}(d_i)

    Classes without a prototype (logits of ``-inf``) add nothing.

    >>> prototype_entropy(torch.tensor([[0.0, 0.0, -math.inf]]))
    tensor([0.6931])
    """
    known = logits > -math.inf
    logs = F.log_softmax(logits, dim=-1).masked_fill(~known, 0)
    return -(logs.exp().masked_fill(~known, 0) * logs).sum(dim=-1)


def graded_stimulation(scores: Tensor) -> Tensor:
    r"""How strongly each modality is pulled towards its prototypes: the weights of the paper.

    .. math:: w_m = \mathrm{clip}\!\left(\frac{\max_j s_j}{s_m} - 1,\; 0,\; 1\right)

    With two modalities and :math:`\rho = s_1 / s_2` these are :math:`\mathrm{clip}(1/\rho - 1, 0,
    1)` and :math:`\mathrm{clip}(\rho - 1, 0, 1)` (Fan et al., CVPR 2023; from memory, not verified
    against the paper).

    Args:
        scores: mean scores per sample, shape ``(M,)``, 0 or more, NaN for a modality without any.

    Returns:
        Shape ``(M,)``; 0 for the best, and where a score is NaN.

    >>> graded_stimulation(torch.tensor([0.6, 0.4, 0.1]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    best = scores.nan_to_num(nan=0.0).amax()
    weight = (best / scores - 1).clamp(0, 1)
    return torch.where(weight.isnan(), 0, weight)  # also 0/0: nobody has a score


def switched_stimulation(scores: Tensor) -> Tensor:
    r"""The weights of the released code: 1 for the weakest modality, 0 for all others.

    None is switched on where all scores are equal.

    Args:
        scores: mean scores per sample, shape ``(M,)``, NaN for a modality without any.

    Returns:
        Shape ``(M,)``.

    >>> switched_stimulation(torch.tensor([0.6, 0.4]))
    tensor([0., 1.])
    """
    scored = ~scores.isnan()
    worst = scores.masked_fill(~scored, math.inf).amin()
    best = scores.masked_fill(~scored, -math.inf).amax()
    weakest = (scores == worst) & (worst < best)
    # Two that share the last place: the first of them, as only one is stimulated.
    return (weakest & (weakest.cumsum(dim=0) == 1)).to(scores.dtype)


def dominance(scores: Tensor) -> Tensor:
    r"""How far each modality is ahead: weights of the entropy regulariser of PMR.

    .. math:: v_m = \mathrm{clip}\!\left(\frac{s_m}{\frac{1}{M-1} \sum_{j \ne m} s_j} - 1,\; 0,\;
        1\right)

    From memory of the paper at M = 2 (Fan et al., CVPR 2023), not verified; the mean of the others
    for M > 2 is ours.

    Args:
        scores: mean scores per sample, shape ``(M,)``, NaN for a modality without any.

    Returns:
        Shape ``(M,)``.

    >>> dominance(torch.tensor([0.6, 0.4]))
    tensor([0.5000, 0.0000])
    """
    scored = ~scores.isnan()
    known = scores.nan_to_num(nan=0.0)
    others = (known.sum() - known) / (scored.sum() - scored.to(known.dtype)).clamp(min=1)
    weight = (known / others - 1).clamp(0, 1)
    return torch.where(weight.isnan() | ~scored | (scored.sum() < 2), 0, weight)
