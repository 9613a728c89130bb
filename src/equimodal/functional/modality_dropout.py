"""Modality dropout: which modalities a sample keeps in training.

A baseline of Peng et al., CVPR 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor


def keep_modalities(numbers: Tensor, spared: Tensor, probabilities: Tensor) -> Tensor:
    r"""Drop modalities of samples at random, but never all of a sample.

    .. math:: r_{im} = [x_{im} \ge p_m], \quad
        r_{im} \leftarrow [m = \lfloor M y_i \rfloor] \text{ where all } r_{i\cdot} = 0

    Args:
        numbers: x, uniform between 0 and 1, shape ``(B, M)``.
        spared: y, uniform between 0 and 1, shape ``(B,)``: which modality comes back to a sample
            that would lose all.
        probabilities: p, shape ``(M,)``.

    Returns:
        Which modalities are kept, shape ``(B, M)``, bool.

    >>> numbers = torch.tensor([[0.9, 0.2], [0.1, 0.8], [0.3, 0.4]])
    >>> keep_modalities(numbers, torch.tensor([0.0, 0.0, 0.7]), torch.tensor([0.5, 0.5]))
    tensor([[ True, False],
            [False,  True],
            [False,  True]])
    """
    keep = numbers >= probabilities
    modalities = numbers.shape[1]
    back = (spared * modalities).long().clamp(max=modalities - 1)
    alone = torch.arange(modalities, device=numbers.device) == back[:, None]
    return keep | (alone & ~keep.any(dim=1, keepdim=True))


def keep_probability(probabilities: Tensor) -> Tensor:
    r"""Return how likely `keep_modalities` keeps each modality, shape ``(M,)``.

    .. math:: P(r_m = 1) = 1 - p_m + \frac{1}{M} \prod_j p_j

    Args:
        probabilities: p, shape ``(M,)``.

    >>> keep_probability(torch.tensor([0.5, 0.5]))
    tensor([0.6250, 0.6250])
    """
    return 1 - probabilities + probabilities.prod() / len(probabilities)
