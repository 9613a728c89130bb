"""Confidence that grows when a modality is taken away."""

from __future__ import annotations

import torch
from torch import Tensor


def confidence_excess(subset: Tensor, superset: Tensor, labels: Tensor) -> Tensor:
    r"""How much more confident the model is with fewer modalities, which it should never be.

    .. math:: g_i \max\big(0,\; \max_c p(f^S_i)_c - \max_c p(f^T_i)_c\big), \quad S \subset T

    The gate g is 0 where the subset is right and the superset is wrong, since confidence may rise
    then, else 1 (Ma et al., ICML 2023; the gate is that of the released code).

    Args:
        subset: logits with the modalities of S, shape ``(B, C)``.
        superset: logits with those of T, shape ``(B, C)``.
        labels: class numbers y, shape ``(B,)``, long.

    Returns:
        One number per sample, shape ``(B,)``, differentiable in both logits.

    >>> sure, unsure = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.1]])
    >>> confidence_excess(sure, unsure, torch.tensor([1]))  # sure, and wrong
    tensor([0.3558])
    >>> confidence_excess(sure, unsure, torch.tensor([0]))  # the subset is right, all are wrong
    tensor([0.])
    """
    (fewer, guess), (more, belief) = (f.softmax(dim=1).max(dim=1) for f in (subset, superset))
    excused = (guess == labels) & (belief != labels)
    return torch.relu(fewer - more) * ~excused
