"""DI-MML: dimensions that speak for one modality alone, and what the others learn from them."""

from __future__ import annotations

import torch
from torch import Tensor


def discriminative(correct: Tensor) -> Tensor:
    """Return which dimensions tell classes apart better than the mean dimension does.

    Args:
        correct: by each dimension alone, the share of samples that are nearest to the mean of their
            own class, shape ``(D,)``.

    Returns:
        Shape ``(D,)``, bool.

    >>> discriminative(torch.tensor([0.9, 0.2, 0.4]))
    tensor([ True, False, False])
    """
    return correct > correct.mean()


def nearest_classes(features: Tensor, means: Tensor, known: Tensor) -> Tensor:
    """Return for every sample and dimension the class whose mean is nearest, by that dimension.

    Args:
        features: shape ``(B, D)``.
        means: of the classes, shape ``(C, D)``.
        known: which classes have a mean, shape ``(C,)``, bool.

    Returns:
        Shape ``(B, D)``, int64; of several, the first.

    >>> nearest_classes(
    ...     torch.tensor([[0.9, 0.2]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.ones(2).bool()
    ... )
    tensor([[1, 0]])
    """
    distances = (features[:, None] - means).abs().masked_fill(~known[:, None], torch.inf)
    return distances.argmin(dim=1)


def one_way_contrast(
    learner: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None
) -> Tensor:
    r"""Contrast that draws a modality to another one's feature of the same sample.

    .. math:: \ell = -\frac1B \sum_i \log
        \frac{e^{s_i^\top t_i / \tau}}{\sum_j e^{s_i^\top t_j / \tau}}

    Nothing flows into the teacher t (Fan et al., ACM MM 2024).

    Args:
        learner: s, on some dimensions, shape ``(B, D)``.
        teacher: t, on the same, shape ``(B, D)``.
        temperature: :math:`\tau`, above 0.
        counted: which samples take part, shape ``(B,)``, bool; all by default.

    Returns:
        Shape ``()``; 0 if no sample takes part.

    >>> one_way_contrast(torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [0.0]]), 1.0)
    tensor(0.4100)
    """
    products = learner @ teacher.detach().T / temperature
    if counted is None:
        return -products.log_softmax(dim=1).diagonal().mean()
    smallest = torch.finfo(products.dtype).min
    logs = products.masked_fill(~counted, smallest).log_softmax(dim=1).diagonal()
    return -torch.where(counted, logs, 0).sum() / counted.sum().clamp(min=1)


def confidence_weighted(logits: Tensor, temperature: float) -> Tensor:
    r"""Sum of logits, each weighted for every sample by how sure it is.

    .. math:: f = \sum_k w_k u_k, \quad w = \mathrm{softmax}_k(\max_c p(u_k)_c / T)

    Args:
        logits: u, shape ``(K, B, C)``.
        temperature: T, above 0.

    Returns:
        Shape ``(B, C)``.

    >>> confidence_weighted(torch.tensor([[[2.0, 0.0]], [[2.0, 0.0]]]), 1.0)
    tensor([[2., 0.]])
    """
    sure = logits.softmax(dim=2).amax(dim=2)
    return ((sure / temperature).softmax(dim=0)[..., None] * logits).sum(dim=0)
