"""Unimodal logits of a linear head, exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def split_linear(
    features: Mapping[str, Tensor], weights: Mapping[str, Tensor], bias: Tensor | None
) -> dict[str, Tensor]:
    r"""What each modality contributes to a linear head on concatenated features.

    .. math:: u_m = z_m W_m^\top + b / M

    The contributions add up to the logits (Peng et al., CVPR 2022).

    Args:
        features: for each modality its feature z, shape ``(B, ..., d_m)``.
        weights: for each modality its slice of the head's weight, shape ``(C, d_m)``.
        bias: the head's bias, shape ``(C,)``, or None.

    Returns:
        For each modality its unimodal logits, shape ``(B, ..., C)``.
    """
    share = None if bias is None else bias / len(weights)
    return {name: F.linear(features[name], weight, share) for name, weight in weights.items()}
