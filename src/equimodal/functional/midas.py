"""Samples put together from several others: the equations of MIDAS."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.functional.means import mean_counted


def misaligned_sources(usable: Tensor, keys: Tensor) -> Tensor:
    """Choose for each sample and modality which samples it is taken from (Hwang et al., 2025).

    M - 1 permutations of the batch stand beside the batch itself, and are given to the M modalities
    in M ways, so that every modality is kept once. With two modalities these are the two of the
    released code: one keeps its own, and then the other.

    Args:
        usable: which samples may be used, shape ``(B,)``, bool.
        keys: uniform from 0 to below 1, shape ``(M - 1, B)``, whose order is a permutation.

    Returns:
        Positions in the batch, shape ``(M, M, B)``, int64: of each way, for each modality. A sample
        that may not be used is taken from itself.

    >>> misaligned_sources(torch.tensor([True, True, False]), torch.tensor([[0.9, 0.1, 0.5]]))
    tensor([[[0, 1, 2],
             [1, 0, 2]],
    <BLANKLINE>
            [[1, 0, 2],
             [0, 1, 2]]])
    """
    own = torch.arange(len(usable), device=usable.device)
    ordered = keys.masked_fill(~usable, 2.0).argsort(dim=1, stable=True)
    nth = (usable.cumsum(dim=0) - 1).clamp(min=0)
    parts = torch.cat([own[None], torch.where(usable, ordered[:, nth], own)])
    modality = torch.arange(len(parts), device=usable.device)
    return parts[(modality[None] - modality[:, None]) % len(parts)]


def misaligned_loss(
    log_predicted: Tensor,
    confidence: Tensor,
    modality_weight: Tensor,
    similarity: Tensor,
    valid: Tensor,
) -> Tensor:
    r"""Loss of samples whose modalities belong to different classes (Hwang et al., NeurIPS 2025).

    .. math::
        L = \frac{1}{N} \sum_i \left(1 + \frac{s_i + 1}{2}\right)
            \left(-\sum_m \alpha_m \tilde c_i^m \log \tilde p_i(y^m_i)\right)

    Args:
        log_predicted: log-probability of the class of the sample that each modality is taken from,
            shape ``(M, N)``.
        confidence: what each modality counts in the label, shape ``(M, N)``, columns that add up
            to 1.
        modality_weight: weights of the modalities, shape ``(M,)``.
        similarity: of the replaced features to those they replace, shape ``(N,)``, -1 to 1.
        valid: which samples count, shape ``(N,)``, bool.

    Returns:
        A tensor of shape ``()``; 0 if no sample counts.

    >>> half = torch.full((2, 1), 0.5)
    >>> misaligned_loss(half.log(), half, torch.ones(2), torch.ones(1), torch.tensor([True]))
    tensor(1.3863)
    """
    losses = -(modality_weight[:, None] * confidence * log_predicted).sum(dim=0)
    losses = (1 + (similarity + 1) / 2) * losses
    return mean_counted(losses, valid)


def replaced_similarity(features: Tensor, sources: Tensor) -> Tensor:
    r"""Cosine of one modality's features to those that stand in their place.

    Args:
        features: shape ``(B, D)``.
        sources: which sample takes the place of each, shape ``(W, B)``.

    Returns:
        Shape ``(W, B)``.

    >>> replaced_similarity(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1, 1]]))
    tensor([[0.7071, 1.0000]])
    """
    return torch.cosine_similarity(features[None], features[sources], dim=2)


def weak_modality_weight(
    weight: Tensor, confidence: Tensor, predicted: Tensor, step: float, limit: float
) -> Tensor:
    r"""Move the weight of the least confident modality by whether the model neglects it.

    .. math::
        \alpha \leftarrow \min(\max(1, \alpha \pm \eta), \alpha_{max}), \quad
        + \text{ if } \frac1M \sum_w \frac{\bar q^w_{\ne \hat m}}{\bar q^w_{\hat m}}
        > \frac{\bar c_{\ne \hat m}}{\bar c_{\hat m}}, \quad
        \hat m = \arg\min_m \bar c_m

    Args:
        weight: the weight, shape ``()``.
        confidence: mean probability that each modality alone gives to its class, shape ``(M,)``.
        predicted: mean probability that the model gives to the class of each modality in each way
            to put samples together, shape ``(M, M)``, ways first.
        step: by how much it moves.
        limit: its largest value; its smallest is 1.

    Returns:
        The new weight, shape ``()``; the old one where a mean is not defined.

    >>> confidence, neglected = torch.tensor([0.6, 0.3]), torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    >>> weak_modality_weight(torch.tensor(1.0), confidence, neglected, step=0.05, limit=10)
    tensor(1.0500)
    """
    weakest = torch.arange(len(confidence), device=weight.device) == confidence.argmin()
    alone = _against(confidence[None], weakest).squeeze(0)
    together = _against(predicted, weakest).mean()
    moved = torch.where(together > alone, weight + step, weight - step).clamp(1, limit)
    sound = confidence.isfinite().all() & predicted.isfinite().all()
    return torch.where(sound, moved, weight)


def _against(means: Tensor, weakest: Tensor) -> Tensor:
    """Return the mean of the other columns in units of the weakest one, shape ``(W,)``."""
    weak = torch.where(weakest, means, 0).sum(dim=1)
    others = torch.where(weakest, 0, means).sum(dim=1) / (len(weakest) - 1)
    return others / weak.clamp(min=torch.finfo(means.dtype).tiny)
