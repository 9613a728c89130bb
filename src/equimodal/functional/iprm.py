"""IPRM: mixtures on the sphere, and weights from how far they are from each modality alone."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.functional.precision import at_least_single

NEAREST = 1e-6  # 1 - |cosine|: nearer vectors than this have an angle without a usable gradient


def geodesic_mixture(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    r"""Mix two feature vectors along the arc between their directions.

    .. math::
        \frac{\sin(\lambda \theta)}{\sin \theta} \frac{a}{\Vert a \Vert}
        + \frac{\sin((1 - \lambda) \theta)}{\sin \theta} \frac{b}{\Vert b \Vert}, \quad
        \theta = \arccos \frac{a^\top b}{\Vert a \Vert \Vert b \Vert}

    From the released code of Yang et al. (IJCAI 2025). Vectors of one direction, for which the
    released code returns zeros and a gradient of NaN, are mixed to that direction; a vector of
    zeros, for which it returns NaN, adds nothing and gets no gradient.

    Args:
        first: a, shape ``(B, D)``.
        second: b, shape ``(B, D)``.
        weight: :math:`\lambda` of the first, 0 to 1, shape ``()``.

    Returns:
        Shape ``(B, D)``, of length 1 but for vectors of zeros; in single precision where the
        features are in half.

    >>> a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    >>> geodesic_mixture(a, b, torch.tensor(0.5))
    tensor([[0.7071, 0.7071]])
    """
    a, b = (_directions(at_least_single(of)) for of in (first, second))
    cosine = (a * b).sum(dim=1, keepdim=True).clamp(NEAREST - 1, 1 - NEAREST)
    angle = cosine.arccos()
    return ((weight * angle).sin() * a + ((1 - weight) * angle).sin() * b) / angle.sin()


def divergence(logits: Tensor, mixed: Tensor) -> Tensor:
    r"""Return how far the prediction of a mixture is from that of one modality.

    .. math:: \mathrm{KL}(p(u) \,\Vert\, p(u_{mix}))

    Args:
        logits: of one modality, shape ``(B, C)``.
        mixed: of the mixture, shape ``(B, C)``.

    Returns:
        One number of 0 or more per sample, shape ``(B,)``.

    >>> divergence(torch.tensor([[9.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2))
    tensor([0.6919, 0.0000])
    """
    own, other = (at_least_single(of).log_softmax(dim=1) for of in (logits, mixed))
    return (own.exp() * (own - other)).sum(dim=1).clamp(min=0)  # rounding may go below


def probed_weight(divergences: Tensor) -> Tensor:
    r"""Return the weight of the first of two modalities: the larger, the nearer the mixture is.

    .. math:: \hat\lambda_a = \frac{K_b}{K_a + K_b}

    Args:
        divergences: K of the first and of the second, shape ``(..., 2)``.

    Returns:
        Shape ``(...)``; 1/2 where both are 0.

    >>> probed_weight(torch.tensor([[0.1, 0.3], [0.0, 0.0]]))
    tensor([0.7500, 0.5000])
    """
    total = divergences.sum(dim=-1)
    known = total > 0
    return torch.where(known, divergences[..., 1] / torch.where(known, total, 1), 0.5)


def _directions(vectors: Tensor) -> Tensor:
    length = vectors.norm(dim=1, keepdim=True)
    empty = length == 0  # a division by something tiny would make its gradient huge
    return torch.where(empty, 0, vectors / torch.where(empty, 1, length))
