"""Distillation between modalities: from the one that knows the answer better to the other."""

from __future__ import annotations

import torch
from torch import Tensor


def self_distillation(
    unimodal: Tensor, labels: Tensor, counted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Distance and divergence of the weaker modality's logits from the stronger one's.

    For every sample and every pair of modalities, the stronger is the one that gives the true class
    more probability:

    .. math:: L_{RS} = \frac{1}{B} \sum_i w_i \frac{\lVert u^-_i - u^+_i \rVert^2}{C}, \quad
        L_{KL} = \frac{1}{B} \sum_i w_i\, KL(p(u^+_i) \,\Vert\, p(u^-_i)), \quad
        w_i = |p(u^+_i)_{y_i} - p(u^-_i)_{y_i}|

    with w = 0 where neither predicts the true class, and for M > 2 the mean over the pairs that a
    sample has. Weights and the stronger modality carry no gradient, so that the stronger is never
    pulled down.

    The equations of MBSD as in BalanceMM (after Liu et al., WSDM 2023); not verified against the
    paper.

    Args:
        unimodal: logits u of every modality, shape ``(M, B, C)``.
        labels: class numbers y, shape ``(B,)``, long.
        counted: which samples count for a modality, shape ``(M, B)``, bool; all by default. A pair
            counts where both do.

    Returns:
        L_RS and L_KL, each of shape ``()``.

    >>> logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])  # one sample, two modalities
    >>> similarity, divergence = self_distillation(logits, torch.tensor([0]))
    >>> similarity  # w = 0.3808, squared distance 4, two classes
    tensor(0.7616)
    """
    first, second = torch.triu_indices(len(unimodal), len(unimodal), 1, device=unimodal.device)
    detached = unimodal.detach()
    truth = labels.expand(unimodal.shape[:2])[..., None]
    probability = detached.softmax(dim=2).gather(2, truth).squeeze(2)
    right = detached.argmax(dim=2) == labels
    weight = (probability[first] - probability[second]).abs()
    weight = weight * (right[first] | right[second])
    if counted is None:
        weight = weight / len(first)
    else:
        both = (counted[first] & counted[second]).to(weight.dtype)
        weight = weight * both / both.sum(dim=0).clamp(min=1)
    leads = (probability[first] >= probability[second])[..., None]
    strong = torch.where(leads, detached[first], detached[second])
    weak = torch.where(leads, unimodal[second], unimodal[first])
    distance = (weak - strong).square().mean(dim=2)
    surprise = strong.log_softmax(dim=2) - weak.log_softmax(dim=2)
    divergence = (strong.softmax(dim=2) * surprise).sum(dim=2)
    return (weight * distance).sum(dim=0).mean(), (weight * divergence).sum(dim=0).mean()
