"""Alternating unimodal adaptation: the projection of the shared head's gradient, and the fusion."""

from __future__ import annotations

import torch
from torch import Tensor


def recursive_least_squares(projection: Tensor, mean: Tensor, ridge: float) -> Tensor:
    r"""Take the direction of a mean feature out of a projection (Zhang et al., CVPR 2024).

    .. math:: P \leftarrow P - \frac{k k^\top}{a + r^\top k}, \quad k = P r

    With P = I at the start it is :math:`(I + \frac{1}{a} \sum r r^\top)^{-1}` after several
    calls. The denominator is a number; the released code has the matrix :math:`k r^\top` there.

    Args:
        projection: P, symmetric, shape ``(D, D)``.
        mean: r, the mean feature of a batch, shape ``(D,)``.
        ridge: a, above 0.

    Returns:
        Shape ``(D, D)``, symmetric. A mean of zeros leaves P as it is.

    >>> recursive_least_squares(torch.eye(2), torch.tensor([1.0, 0.0]), ridge=0.25)
    tensor([[0.2000, 0.0000],
            [0.0000, 1.0000]])
    """
    gain = projection @ mean
    return projection - torch.outer(gain, gain) / (ridge + mean @ gain)


def unit_norm(projection: Tensor) -> Tensor:
    r"""Divide a projection, shape ``(N, N)``, by its Frobenius norm; zeros stay zeros.

    >>> unit_norm(torch.eye(4))[0, 0]
    tensor(0.5000)
    """
    norm: Tensor = torch.linalg.matrix_norm(projection)
    return projection / norm.clamp(min=torch.finfo(projection.dtype).tiny)


def entropy_weights(logits: Tensor) -> Tensor:
    r"""Weights of modalities for each sample, from how sure they are (Zhang et al., CVPR 2024).

    .. math::
        w_{m,i} = \frac{\exp(\max_j H_{j,i} - H_{m,i})}{\sum_v \exp(\max_j H_{j,i} - H_{v,i})},
        \quad H_{m,i} = -\sum_c p_{m,i,c} \log p_{m,i,c}

    The maximum cancels. The released code takes the softmax over the samples of the batch, and one
    weight for all of them.

    Args:
        logits: of each modality, shape ``(M, B, C)``.

    Returns:
        Shape ``(M, B)``, summing to 1 over the modalities.

    >>> entropy_weights(torch.tensor([[[9.0, -9.0]], [[0.0, 0.0]]]))
    tensor([[0.6667],
            [0.3333]])
    """
    logs = logits.log_softmax(dim=-1)
    # 0 * log 0 is 0: a logit of minus infinity is a class that cannot be.
    entropy = -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(dim=-1)
    return (-entropy).softmax(dim=0)
