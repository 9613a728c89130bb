"""Conditional learning speed: how fast parts of a network learn, and which modality is favoured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def learning_speed(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    r"""How fast a set of parameters learns in one step (Wu et al., ICML 2022).

    .. math:: \mu = \frac{\sum_w \lVert g_w \rVert^2}{\sum_w \lVert w \rVert^2}

    Args:
        gradients: of every parameter of the set, one or more of any shapes.
        weights: the parameters, likewise.

    Returns:
        Shape ``()``; 0 where all parameters are 0.

    >>> learning_speed([torch.tensor([3.0, 4.0])], [torch.tensor([1.0, 2.0])])
    tensor(5.)
    """
    moved, size = _squared(gradients), _squared(weights)
    return torch.where(size > 0, moved / size, 0.0)


def speed_difference(bypass: Tensor, main: Tensor) -> Tensor:
    r"""Difference of the conditional learning speeds of two modalities (Wu et al., ICML 2022).

    .. math:: d = \log_{10} \frac{\mu^b_1}{\mu^m_1} - \log_{10} \frac{\mu^b_2}{\mu^m_2}

    Above 0, the first modality learns more through what the other tells it, relative to its own
    branch, than the second does.

    Args:
        bypass: speeds of what carries information across modalities, shape ``(2,)``.
        main: speeds of the modalities' own branches, shape ``(2,)``.

    Returns:
        Shape ``()``; NaN where a modality learns nothing at all.

    >>> speed_difference(torch.tensor([10.0, 1.0]), torch.tensor([1.0, 1.0]))
    tensor(1.)
    """
    ratios = (bypass / main).log10()
    return ratios[0] - ratios[1]


def _squared(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of all squares, at least in single precision."""
    norms = torch._foreach_norm(list(tensors))
    wide = torch.promote_types(norms[0].dtype, torch.float32)
    return torch.stack([norm.to(wide) for norm in norms]).square().sum()
