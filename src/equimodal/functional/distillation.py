"""What a multimodal student learns from unimodal teachers: features, logits, and who goes first."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.functional.means import mean_counted


def feature_distance(
    student: Tensor,
    teacher: Tensor,
    counted: Tensor | None = None,
    among: Tensor | None = None,
) -> Tensor:
    r"""Mean squared difference between features.

    .. math:: \frac{1}{B D} \sum_i \lVert z_i - z_i^T \rVert^2

    The feature term of UMT (Du et al., ICML 2023) and of G2D (Rakib and Bagavathi, ICCV 2025).

    Args:
        student: z, shape ``(B, D)``.
        teacher: z^T, shape ``(B, D)``.
        counted: which samples count, shape ``(B,)``, bool; all by default.
        among: which samples the mean is over, shape ``(B,)``, bool; those that count by default.

    Returns:
        A tensor of shape ``()``; 0 if no sample counts.

    >>> feature_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(2.)
    """
    return mean_counted((student - teacher).square().mean(dim=1), counted, among)


def logit_divergence(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    counted: Tensor | None = None,
    among: Tensor | None = None,
) -> Tensor:
    r"""Divergence of a student's softened class probabilities from a teacher's.

    .. math:: \frac{\tau^2}{B} \sum_i KL(p(t_i / \tau) \,\Vert\, p(f_i / \tau))

    Args:
        student: logits f, shape ``(B, C)``.
        teacher: logits t, shape ``(B, C)``.
        temperature: tau, positive.
        counted: which samples count, shape ``(B,)``, bool; all by default.
        among: which samples the mean is over, shape ``(B,)``, bool; those that count by default.

    Returns:
        A tensor of shape ``()``; 0 if no sample counts.

    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> logit_divergence(logits, logits)
    tensor(0.)
    """
    softened, target = (f.div(temperature).log_softmax(dim=1) for f in (student, teacher))
    divergence = (target.exp() * (target - softened)).sum(dim=1)
    return temperature**2 * mean_counted(divergence, counted, among)


def prioritised(scores: Tensor, phase: Tensor) -> Tensor:
    r"""Which modalities go first: 1 for those, 0 for the others.

    In phase 0 it is the one with the lowest score, in phase 1 that with the second lowest, and so
    on. Ties go together: of two modalities with equal scores, both are trained. With two modalities
    there is one phase, as in G2D (Rakib and Bagavathi, ICCV 2025); the sequence of more is from
    memory and not verified against the paper.

    Args:
        scores: how well each teacher does, shape ``(M,)``; NaN for a modality that is absent, which
            is not compared, and is 1.
        phase: counted from 0, shape ``()``.

    Returns:
        Coefficients of shape ``(M,)``.

    >>> prioritised(torch.tensor([0.6, 0.4, 0.9]), torch.tensor(0))
    tensor([0., 1., 0.])
    >>> prioritised(torch.tensor([0.6, 0.4, 0.9]), torch.tensor(1))
    tensor([1., 0., 0.])
    """
    absent = scores.isnan()
    weaker = (scores[None] < scores[:, None]).sum(dim=1)  # NaN is weaker than none
    reached = torch.where((weaker <= phase) & ~absent, weaker, 0)
    return ((weaker == reached.max()) | absent).to(scores.dtype)
