"""ReconBoost: the loss of one learner on what the others leave over."""

from __future__ import annotations

from torch import Tensor


def boosting_loss(
    logits: Tensor, others: Tensor, target: Tensor, own: float = 5.0, residual: float = 1.0
) -> Tensor:
    r"""Cross-entropy of a learner, less where the others are sure already (Hua et al., ICML 2024).

    .. math::
        \ell_i = -\frac{1}{C} \big(w_1 - w_2\, p(J_i)_{y_i}\big) \log p(u_i)_{y_i}

    The released form of fitting a learner to the negative gradient of the loss of the ensemble of
    the others. Nothing flows into the others.

    Args:
        logits: u, of the learner, shape ``(B, C)``.
        others: J, of the ensemble of the others, shape ``(B, C)``; zeros where there are none.
        target: classes, shape ``(B,)``, int64.
        own: w_1; above w_2, so that no sample is unlearned.
        residual: w_2.

    Returns:
        One loss per sample, shape ``(B,)``.

    >>> import torch
    >>> logits, target = torch.zeros(2, 2), torch.tensor([0, 0])
    >>> boosting_loss(logits, torch.tensor([[9.0, -9.0], [-9.0, 9.0]]), target)
    tensor([1.3863, 1.7329])
    """
    column = target[:, None]
    sure = others.detach().softmax(dim=1).gather(1, column)[:, 0]
    log_likelihood = logits.log_softmax(dim=1).gather(1, column)[:, 0]
    return -(own - residual * sure) * log_likelihood / logits.shape[1]


def agreement(logits: Tensor, previous: Tensor) -> Tensor:
    r"""Squared distance of two learners' probabilities, for each sample.

    .. math:: \frac{1}{C} \sum_c \big(p(u_i)_c - p(u'_i)_c\big)^2

    Args:
        logits: shape ``(B, C)``.
        previous: of the learner of the stage before, shape ``(B, C)``; nothing flows into it.

    Returns:
        Shape ``(B,)``.

    >>> import torch
    >>> agreement(torch.tensor([[0.0, 0.0]]), torch.tensor([[99.0, -99.0]]))
    tensor([0.2500])
    """
    distance = logits.softmax(dim=1) - previous.detach().softmax(dim=1)
    return distance.square().mean(dim=1)
