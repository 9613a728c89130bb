"""Samples put together from several others: the equations of MIDAS."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.functional.means import mean_counted


def misaligned_sources(labels: Tensor, usable: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Choose for each sample and modality which sample it is taken from (Hwang et al., appendix).

    A sample and M - 1 others of another class are given to the M modalities in random order.

    Args:
        labels: class numbers, shape ``(B,)``.
        usable: which samples may be used, shape ``(B,)``, bool.
        numbers: uniform from 0 to below 1, shape ``(2 M - 1, B)``: M - 1 choose the others, M the
            order.

    Returns:
        Positions in the batch, shape ``(M, B)``, int64; and for which samples there is another,
        shape ``(B,)``, bool. Where there is none, all positions are those of the sample.

    >>> labels, numbers = torch.tensor([0, 1, 0]), torch.tensor([[0.9] * 3, [0.1] * 3, [0.2] * 3])
    >>> misaligned_sources(labels, torch.ones(3, dtype=torch.bool), numbers)
    (tensor([[0, 1, 2],
            [1, 2, 1]]), tensor([True, True, True]))
    """
    modalities = (len(numbers) + 1) // 2
    own = torch.arange(len(labels), device=labels.device)
    others = (labels[:, None] != labels) & usable & usable[:, None]
    count = others.sum(dim=1)
    valid = count > 0
    # The number of the chosen one among those of another class, and then its position.
    chosen = torch.minimum((numbers[: modalities - 1] * count).long(), count - 1)
    passed = others.cumsum(dim=1) <= chosen[..., None]
    found = torch.where(valid, passed.sum(dim=-1).clamp(max=len(labels) - 1), own)
    sources = torch.cat([own[None], found])
    return sources.gather(0, numbers[modalities - 1 :].argsort(dim=0)), valid


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
            shape ``(M, B)``.
        confidence: what each modality counts in the label, shape ``(M, B)``, columns that add up
            to 1.
        modality_weight: weights of the modalities, shape ``(M,)``.
        similarity: of the replaced features to those they replace, shape ``(B,)``, -1 to 1.
        valid: which samples count, shape ``(B,)``, bool.

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
    r"""Cosine of one modality's features to those that replace them; 0 where none is replaced.

    Args:
        features: shape ``(B, D)``.
        sources: which sample takes the place of each, shape ``(B,)``.

    Returns:
        Shape ``(B,)``.

    >>> replaced_similarity(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([1, 1]))
    tensor([0.7071, 0.0000])
    """
    replaced = sources != torch.arange(len(sources), device=sources.device)
    cosine = torch.cosine_similarity(features, features[sources], dim=1)
    return torch.where(replaced, cosine, 0)


def weak_modality_weight(weight: Tensor, target: Tensor, signal: Tensor, step: float) -> Tensor:
    r"""Raise the weight of the least confident modality where the model neglects it.

    .. math::
        \alpha_{\hat m} \leftarrow \max(1, \alpha_{\hat m} + \eta \Delta), \quad
        \hat m = \arg\min_m \mathbb{E}\, \tilde c^m, \quad \alpha_m \leftarrow 1
        \text{ for the others}

    Args:
        weight: weights of the modalities, shape ``(M,)``.
        target: mean confidence of each, shape ``(M,)``.
        signal: the update signal of each, shape ``(M,)``; that of the least confident is used.
        step: its size.

    Returns:
        New weights, shape ``(M,)``; the old ones where a target or signal is not defined.

    >>> target, predicted = torch.tensor([0.75, 0.25]), torch.tensor([0.9, 0.1])
    >>> weak_modality_weight(torch.ones(2), target, target - predicted, step=0.1)
    tensor([1.0000, 1.0150])
    """
    weakest = torch.arange(len(weight), device=weight.device) == target.argmin()
    raised = torch.where(weakest, (weight + step * signal).clamp(min=1), 1.0)
    sound = (target.isfinite() & signal.isfinite()).all()
    return torch.where(sound, raised, weight)
