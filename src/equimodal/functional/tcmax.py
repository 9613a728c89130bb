"""Total correlation between features and label: its lower bound is the loss of TCMax."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def total_correlation_loss(
    positives: Tensor, log_mean: Tensor, weight: Tensor | None = None
) -> Tensor:
    r"""Negative lower bound of the total correlation (Yu et al., ICLR 2026).

    .. math::
        L = -\frac{1}{B} \sum_i f(z_i^1, \dots, z_i^M)_{y_i} + \log \mathbb{E}\,
            e^{f(z_{j_1}^1, \dots, z_{j_M}^M)_{y'}}

    The expectation is over combinations of features of different samples and over all classes: the
    Donsker-Varadhan bound, with the classifier's logits f as its critic.

    Args:
        positives: logits of the true classes, shape ``(B,)``.
        log_mean: logarithm of the expectation, shape ``()``.
        weight: weights of the samples, shape ``(B,)``; 0 leaves one out.

    Returns:
        A tensor of shape ``()``. It may be negative, unlike a cross-entropy.

    >>> total_correlation_loss(torch.tensor([2.0, 1.0]), torch.tensor(0.5))
    tensor(-1.)
    """
    if weight is None:
        return log_mean - positives.mean()
    weight = weight.to(positives.dtype)
    return log_mean - (weight * positives).sum() / weight.sum().clamp(min=1)


def log_mean_exp(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    r"""Logarithm of the mean of the exponentials of all logits of all combinations.

    .. math:: \log \frac{1}{N |Y|} \sum_{n, y'} e^{f_{n, y'}}

    Args:
        logits: of N combinations of features, shape ``(N, C)``.
        valid: which combinations count, shape ``(N,)``, bool; all by default. If none does, the
            value is of all of them.

    Returns:
        A tensor of shape ``()``.

    >>> log_mean_exp(torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    tensor(0.)
    """
    rows, classes = logits.shape
    if valid is None:
        return torch.logsumexp(logits, dim=(0, 1)) - math.log(rows * classes)
    logits, count = _masked(logits, valid)
    return torch.logsumexp(logits, dim=(0, 1)) - torch.log(count * classes)


def additive_log_mean_exp(unimodal: Tensor, present: Tensor | None = None) -> Tensor:
    r"""`log_mean_exp` over all combinations of a head that adds up unimodal logits.

    .. math::
        \log \frac{1}{|Y|} \sum_{y'} \prod_m \frac{1}{B} \sum_j e^{u_{m, j, y'}},
        \quad f = \sum_m u_m

    The sum over the B^M combinations is a product of M sums over B (Yu et al., ICLR 2026).

    Args:
        unimodal: logits u, shape ``(M, B, C)``.
        present: which samples have each modality, shape ``(M, B)``, bool; all by default.

    Returns:
        A tensor of shape ``()``.

    >>> u = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])
    >>> pairs = (u[0][:, None] + u[1][None]).flatten(0, 1)
    >>> bool(torch.isclose(additive_log_mean_exp(u), log_mean_exp(pairs)))
    True
    """
    _, samples, classes = unimodal.shape
    if present is None:
        means = torch.logsumexp(unimodal, dim=1) - math.log(samples)
    else:
        unimodal, count = _masked(unimodal, present)
        means = torch.logsumexp(unimodal, dim=1) - torch.log(count)[:, None]
    return torch.logsumexp(means.sum(dim=0), dim=0) - math.log(classes)


def _masked(logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits of ``-inf`` where they do not count, and how many rows count.

    A sum over nothing has no gradient: where no row counts, all do, and the caller gives the result
    no weight.
    """
    valid = valid | ~valid.any(dim=-1, keepdim=True)
    return logits.masked_fill(~valid[..., None], -math.inf), valid.sum(dim=-1).to(logits.dtype)
