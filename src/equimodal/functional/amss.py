"""AMSS: how large a part of each encoder is updated, and which filters."""

from __future__ import annotations

import torch
from torch import Tensor


def label_information(counts: Tensor) -> Tensor:
    r"""Information in the labels of a batch: the cross-entropy of their shares with a softmax.

    .. math:: H_Y = -\sum_c p_c \log \mathrm{softmax}(p)_c

    That is what the released code of AMSS computes; it is the entropy where classes are equally
    frequent, and above it otherwise.

    Args:
        counts: how many labels are of each class, shape ``(C,)``.

    Returns:
        Shape ``()``.

    >>> label_information(torch.tensor([2.0, 2.0]))  # log 2
    tensor(0.6931)
    """
    shares = counts / counts.sum().clamp(min=1)
    return -(shares * shares.log_softmax(dim=0)).sum()


def updated_shares(
    losses: Tensor,
    entropies: Tensor,
    information: Tensor,
    temperature: float = 0.2,
    offset: float = 0.5,
    bounds: tuple[float, float] = (0.1, 0.9),
) -> Tensor:
    r"""Share of each encoder's filters that are updated: smaller, the more a modality says already.

    .. math:: c_m = 1 - \frac{e^{r_m / T}}{\sum_j e^{r_j / T}}, \quad
        r_m = \frac{H_Y - \ell_m + o}{H_m}

    within bounds; 1/2 for all where a numerator is not positive (Yang et al., TPAMI 2025, released
    code; with two modalities it is written as the softmax share of the other).

    Args:
        losses: mean cross-entropy of each modality alone, shape ``(M,)``; NaN for one that is not
            there: the others are compared without it.
        entropies: mean entropy H of the softmax of the features, shape ``(M,)``.
        information: in the labels, shape ``()``: `label_information`.
        temperature: T, above 0.
        offset: o.
        bounds: smallest and largest share.

    Returns:
        Shape ``(M,)``.

    >>> losses, entropies = torch.tensor([0.5, 0.6]), torch.tensor([1.0, 1.0])
    >>> updated_shares(losses, entropies, torch.tensor(1.0))
    tensor([0.3775, 0.6225])
    """
    known = losses.isfinite()
    informed = information - losses + offset
    ratios = informed / entropies
    softened = torch.where(known, ratios / temperature, -torch.inf).softmax(dim=0)
    compared = ((informed > 0) | ~known).all() & (known.sum() > 1)
    return torch.where(compared & known, (1 - softened).clamp(*bounds), 0.5)


def drawn_filters(importance: Tensor, share: Tensor, numbers: Tensor) -> Tensor:
    r"""Draw filters without replacement, each next one in proportion to its importance.

    .. math:: k = \lceil c\, n \rceil, \quad q_j = \frac{\|g_j\|^2}{\sum_i \|g_i\|^2}

    By the largest of :math:`\log q_j - \log(-\log u_j)`, which has that distribution.

    Args:
        importance: squared norms of the gradients of the n filters, shape ``(n,)``.
        share: c, shape ``()``.
        numbers: uniform numbers u, shape ``(n,)``.

    Returns:
        Which are kept, bool, shape ``(n,)``.

    >>> drawn_filters(torch.tensor([0.0, 1.0]), torch.tensor(0.5), torch.tensor([0.5, 0.5]))
    tensor([False,  True])
    """
    size = len(importance)
    tiny = torch.finfo(numbers.dtype).tiny
    keys = importance.log() - (-numbers.clamp(min=tiny).log()).clamp(min=tiny).log()
    rank = keys.argsort(descending=True).argsort()
    # Rounded: 0.9 of 10 filters must not be 10 of them.
    return rank < (share * size - 1e-4).ceil()
