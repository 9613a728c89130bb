"""The equations of PASSION: how far modalities lie from what they are fused to.

Shi et al., ACM MM 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from equimodal.functional.pmr import class_sums


def prototype_similarity(features: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    r"""Return the cosine of each feature to each class's mean feature.

    .. math:: c_k = \mathrm{mean}_{i: y_i = k}\, z_i, \qquad S_{ik} = \cos(z_i, c_k)

    Args:
        features: z, shape ``(B, D)``.
        target: classes, shape ``(B,)``, int64. A sample outside of 0 to C - 1 is in no mean.
        classes: number of classes C.

    Returns:
        Cosines of shape ``(B, C)``, and which classes have a sample, shape ``(C,)``, bool. Cosines
        to the others are 0.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> prototype_similarity(z, torch.tensor([0, 1]), 3)
    (tensor([[1., 0., 0.],
            [0., 1., 0.]]), tensor([ True,  True, False]))
    """
    sums, counts = class_sums(features, target, classes)
    prototypes = sums / counts.clamp(min=1)[:, None]
    found = F.cosine_similarity(features[:, None], prototypes[None], dim=2, eps=1e-5)
    return found, counts > 0


def similarity_gap(own: Tensor, fused: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return how a modality's cosines to prototypes differ from those of the fused feature.

    .. math:: p_i = \mathrm{mean}_k (S^m_{ik} - S_{ik})^2, \qquad
        d_i = \mathrm{mean}_k |S^m_{ik} - S_{ik}|

    Args:
        own: cosines of the modality, shape ``(B, C)``.
        fused: of the fused feature, likewise.
        known: the classes that the means are over, shape ``(C,)``, bool.

    Returns:
        The prototype loss p and the distance d, shape ``(B,)`` each.

    >>> own, fused = torch.tensor([[1.0, 0.5, 9.0]]), torch.tensor([[0.0, 0.5, 0.0]])
    >>> similarity_gap(own, fused, torch.tensor([True, True, False]))
    (tensor([0.5000]), tensor([0.5000]))
    """
    apart = torch.where(known, own - fused, 0.0)
    count = known.sum().clamp(min=1)
    return apart.square().sum(dim=1) / count, apart.abs().sum(dim=1) / count


def lagging(distances: Tensor, present: Tensor) -> Tensor:
    r"""Return the modalities that lie further from the fused feature than others, shape ``(M,)``.

    .. math:: \sum_i a_{im} \left(\frac{d_{im}}{\mathrm{mean}_{m: a_{im}} d_{im}} - 1\right) > 0

    Args:
        distances: shape ``(M, B)``.
        present: which samples have the modality, a, shape ``(M, B)``, bool.

    >>> lagging(torch.tensor([[0.3], [0.1]]), torch.ones(2, 1, dtype=torch.bool))
    tensor([ True, False])
    """
    there = torch.where(present, distances, 0.0)
    mean = there.sum(dim=0) / present.sum(dim=0).clamp(min=1)
    relative = torch.where(present & (mean > 0), there / mean - 1, 0.0)
    return relative.sum(dim=1) > 0


def updated_factors(factors: Tensor, distances: Tensor, rate: float) -> Tensor:
    r"""Return the factors on the losses of the modalities for the next epoch, shape ``(M,)``.

    .. math:: \beta_m \leftarrow \mathrm{clip}\Big(\beta_m
        - \eta\, \frac{\bar d - d_m}{\bar d},\; 0.1,\; 4\Big), \qquad
        \beta \leftarrow \sqrt{M}\, \frac{\beta}{\|\beta\|}

    Args:
        factors: :math:`\beta`, shape ``(M,)``.
        distances: mean distance of each modality in the epoch, shape ``(M,)``.
        rate: :math:`\eta`.

    >>> updated_factors(torch.ones(2), torch.tensor([0.3, 0.1]), 0.5)
    tensor([1.2127, 0.7276])
    """
    mean = distances.mean()
    moved = (factors - rate * (mean - distances) / mean).clamp(0.1, 4.0)
    scaled: Tensor = len(moved) ** 0.5 * moved / moved.norm()
    return scaled


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Return the divergence of each sample from its teacher, as a mean over the classes.

    .. math:: \frac{\tau^2}{C} KL(p(t_i / \tau) \,\Vert\, p(f_i / \tau))

    Args:
        student: logits f, shape ``(B, C)``.
        teacher: logits t, likewise.
        temperature: :math:`\tau`, above 0.

    Returns:
        Shape ``(B,)``.
    """
    log_student, log_teacher = (
        (logits / temperature).log_softmax(dim=1) for logits in (student, teacher)
    )
    terms = log_teacher.exp() * (log_teacher - log_student)
    return temperature**2 * terms.mean(dim=1)
