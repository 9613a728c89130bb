"""From a discrepancy ratio to the coefficient that multiplies a modality's gradient.

Each function maps ratios of any shape to coefficients of the same shape, and an undefined ratio
(NaN) to 1, which changes nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def thresholded_coefficient(ratio: Tensor, alpha: float) -> Tensor:
    r"""Coefficient of OGM (Peng et al., CVPR 2022).

    .. math:: k = 1 - \tanh(\alpha \rho) \text{ if } \rho > 1 \text{, else } 1

    It jumps at :math:`\rho = 1`, from 1 to :math:`1 - \tanh \alpha`. Ratios of any shape give
    coefficients of that shape.

    >>> thresholded_coefficient(torch.tensor([0.5, 1.0, 2.0]), alpha=0.8)
    tensor([1.0000, 1.0000, 0.0783])
    """
    ahead = F.threshold(torch.nan_to_num(ratio, nan=0.0), 1, 0)  # tanh(0) is 0
    return 1 - torch.tanh(alpha * ahead)


def continuous_coefficient(ratio: Tensor, alpha: float) -> Tensor:
    r"""Coefficient without the jump (Wei et al., TPAMI 2024).

    .. math:: k = \max(0, 1 - \alpha \tanh(\rho - 1)) \text{ if } \rho > 1 \text{, else } 1

    Ratios of any shape give coefficients of that shape.

    >>> continuous_coefficient(torch.tensor([0.5, 1.0, 2.0]), alpha=0.8)
    tensor([1.0000, 1.0000, 0.3907])
    """
    damped = (1 - alpha * torch.tanh(ratio - 1)).clamp(min=0)
    return torch.where(ratio > 1, damped, 1.0)


def two_sided_coefficient(
    ratio: Tensor, alpha: float, beta: float = 2.0, damping: float | None = None
) -> Tensor:
    r"""Coefficient that slows the leader and speeds up those behind (Kontras et al., BMVC 2024).

    .. math:: k = 1 + (\beta - 1) \tanh(\alpha (r - 1)), \quad r = 1 / \rho

    The ratio r of that paper is the inverse of OGM's: the score of the others over one's own. It is
    above 1 for a modality that lags, whose coefficient then rises towards beta.

    Args:
        ratio: discrepancy ratio as in OGM, one's own score over that of the others, any shape.
        alpha: steepness.
        beta: the largest coefficient.
        damping: stands for ``beta - 1`` on the side of the leader, if given. The released code has
            1 there, whatever beta is; the two agree at ``beta=2``.

    >>> two_sided_coefficient(torch.tensor([0.5, 1.0, 2.0]), alpha=0.8)
    tensor([1.6640, 1.0000, 0.6201])
    """
    lag = _finite(1 / ratio)
    gain = torch.tanh(alpha * (lag - 1))
    leading = beta - 1 if damping is None else damping
    coefficient = torch.where(lag > 1, 1 + (beta - 1) * gain, 1 + leading * gain)
    return torch.where(torch.isnan(ratio), 1.0, coefficient)


def _finite(ratio: Tensor) -> Tensor:
    """Bound a ratio to something over next to nothing: 0 * inf would be undefined."""
    return ratio.clamp(max=torch.finfo(ratio.dtype).max)
