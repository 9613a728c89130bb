"""MSES: when a loss has not improved for so long that it is time to stop.

Fujimori et al., ACPR 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor


def patience_spent(
    best: Tensor, waited: Tensor, losses: Tensor, patience: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare losses with the best so far, each by itself.

    Args:
        best: the smallest losses so far, any shape; infinity at the start.
        waited: how often each has not improved since, the same shape, int64.
        losses: the latest; NaN is no improvement.
        patience: how often may pass without improvement before it is time to stop, at least 1.

    Returns:
        The new best, the new waited, and where patience is spent, bool.

    >>> best, waited = torch.tensor([0.5, 0.5]), torch.tensor([1, 1])
    >>> patience_spent(best, waited, torch.tensor([0.4, 0.6]), patience=2)
    (tensor([0.4000, 0.5000]), tensor([0, 2]), tensor([False,  True]))
    """
    improved = losses < best
    waited = torch.where(improved, 0, waited + 1)
    return torch.where(improved, losses, best), waited, waited >= patience
