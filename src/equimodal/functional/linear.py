"""Unimodal logits of a head that is affine in its features, exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
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


def split_columns(
    features: Mapping[str, Tensor], weight: Tensor, bias: Tensor | None
) -> dict[str, Tensor]:
    """Return what `split_linear` does, of a weight whose columns are not cut apart yet.

    Features of one shape share a product.

    Args:
        features: for each modality its feature z, shape ``(B, ..., d_m)``, in the order of columns.
        weight: the head's weight, shape ``(C, sum of d_m)``.
        bias: the head's bias, shape ``(C,)``, or None.

    Returns:
        For each modality its unimodal logits, shape ``(B, ..., C)``.
    """
    several, first = len(features), next(iter(features.values()))
    alike = all(z.shape == first.shape and z.dtype == first.dtype for z in features.values())
    if not alike or first.ndim != 2 or several * first.shape[1] != weight.shape[1]:
        widths = [feature.shape[-1] for feature in features.values()]
        slices = torch.split(weight, widths, dim=1)
        return split_linear(features, dict(zip(features, slices, strict=True)), bias)
    stacked = torch.stack(list(features.values()))
    if torch.is_grad_enabled():
        columns = weight.view(weight.shape[0], several, -1).permute(1, 2, 0)
    else:  # the same view in one operation, whose gradient would cost more
        (down, along), width = weight.stride(), first.shape[1]
        shape = (several, width, weight.shape[0])
        columns = weight.as_strided(shape, (width * along, along, down))
    if bias is None:
        products = torch.bmm(stacked, columns)
    else:
        products = torch.baddbmm(bias, stacked, columns, beta=1 / several)
    return dict(zip(features, products.unbind(), strict=True))


def split_affine(alone: Mapping[str, Tensor], nothing: Tensor) -> dict[str, Tensor]:
    r"""What each modality contributes to a head that is affine in its features.

    .. math:: u_m = H(z_m, 0) - (1 - 1/M) \, H(0, 0)

    The contributions add up to the logits, and for a linear layer on concatenated features they are
    those of `split_linear`.

    Args:
        alone: for each modality what the head answers to its feature and zeros for the others,
            shape ``(B, ..., C)``.
        nothing: what it answers to zeros, same shape.

    Returns:
        For each modality its unimodal logits, shape ``(B, ..., C)``.

    >>> import torch
    >>> split_affine({"a": torch.tensor([3.0]), "v": torch.tensor([2.0])}, torch.tensor([1.0]))
    {'a': tensor([2.5000]), 'v': tensor([1.5000])}
    """
    rest = (1 - 1 / len(alone)) * nothing
    return {name: logits - rest for name, logits in alone.items()}
