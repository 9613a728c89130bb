"""AUG: labels that a new classifier fits, and which modality gets one."""

from __future__ import annotations

from torch import Tensor


def residual_loss(newest: Tensor, others: Tensor, target: Tensor, softening: float = 0.5) -> Tensor:
    r"""Cross-entropy of the newest classifier against what the others leave over.

    .. math::
        \ell_i = -\hat y_i^\top \log p(\delta_i), \quad
        \hat y_i = y_i - \lambda\, y_i \odot p\Big(\sum_{j < n} \delta_{ij}\Big)

    Equation 2 of Jiang et al. (NeurIPS 2025), with the prediction of several classifiers read as
    the softmax of the sum of their logits. Nothing flows into the labels.

    Args:
        newest: logits :math:`\delta` of the newest classifier, shape ``(B, C)``.
        others: sum of the logits of all others of the modality, shape ``(B, C)``.
        target: classes, shape ``(B,)``, int64.
        softening: :math:`\lambda`, 0 to 1.

    Returns:
        One loss per sample, shape ``(B,)``.

    >>> import torch
    >>> sure, unsure = torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])
    >>> newest, target = torch.zeros(1, 2), torch.tensor([0])
    >>> residual_loss(newest, sure, target), residual_loss(newest, unsure, target)
    (tensor([0.3466]), tensor([0.6931]))
    """
    column = target[:, None]
    left = 1 - softening * others.detach().softmax(dim=1).gather(1, column)[:, 0]
    return -left * newest.log_softmax(dim=1).gather(1, column)[:, 0]


def confidence_gaps(confidence: Tensor, coefficient: float = 1.0) -> Tensor:
    r"""Return by how much each modality lags behind the others.

    .. math:: \frac{1}{M - 1} \sum_{j \ne m} s_j - \sigma s_m

    Args:
        confidence: see `lagging_modalities`.
        coefficient: :math:`\sigma`.

    Returns:
        Shape ``(M,)``; NaN where there is nothing to compare.

    >>> import torch
    >>> confidence_gaps(torch.tensor([0.75, 0.5]))
    tensor([-0.2500,  0.2500])
    """
    known = ~confidence.isnan()
    total, count = confidence.nansum(), known.sum()
    others = (total - confidence) / (count - 1)
    return others - coefficient * confidence


def lagging_modalities(
    confidence: Tensor, coefficient: float = 1.0, dead_zone: float = 0.01
) -> Tensor:
    r"""Tell which modalities are weak enough to get one more classifier.

    .. math:: \frac{1}{M - 1} \sum_{j \ne m} s_j - \sigma s_m > \tau

    The rule of Jiang et al. (NeurIPS 2025) for two modalities, applied to either of them; with
    three modalities, :math:`\sigma = 1.25` and :math:`\tau = 0` it is the rule of the released
    code, :math:`s_m / \sum_{j \ne m} s_j < 0.4`.

    Args:
        confidence: mean probability s of the true class, shape ``(M,)``; NaN for a modality of
            which nothing is known: it takes no part.
        coefficient: :math:`\sigma`.
        dead_zone: :math:`\tau`.

    Returns:
        Shape ``(M,)``, bool.

    >>> import torch
    >>> lagging_modalities(torch.tensor([0.9, 0.5]))
    tensor([False,  True])
    >>> lagging_modalities(torch.tensor([0.505, 0.5]))
    tensor([False, False])
    """
    return confidence_gaps(confidence, coefficient) > dead_zone  # False for one that is alone
