"""The equations of MASAM: whom to move, and where to (ICLR 2026)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def alignment(own: Sequence[Tensor], joint: Sequence[Tensor]) -> Tensor:
    r"""Return how well two gradients of an encoder agree, shape ``()``.

    .. math:: s = \frac{1}{P} \sum_p \cos(u_p, g_p)

    Args:
        own: gradient u of the modality's own loss, a tensor per parameter.
        joint: gradient g of the joint loss, likewise.

    >>> ones, some = torch.ones(2), torch.tensor([1.0, -1.0])
    >>> alignment([ones, ones], [2 * ones, some])
    tensor(0.5000)
    """
    pairs = zip(own, joint, strict=True)
    return torch.stack(
        [torch.cosine_similarity(_flat(u), _flat(g), dim=0) for u, g in pairs]
    ).mean()


def along(own: Sequence[Tensor], joint: Sequence[Tensor]) -> list[Tensor]:
    r"""Return the part of a modality's own gradient that lies along the joint one.

    .. math:: d_p = \frac{\langle u_p, g_p \rangle}{\|g_p\|^2}\, g_p
        \text{ if } \langle u_p, g_p \rangle \ge 0 \text{, else } g_p

    Arguments are those of `alignment`. Each result has the shape of its parameter; where the joint
    gradient is zero, so is the result.

    >>> along([torch.tensor([2.0, 5.0])], [torch.tensor([1.0, 0.0])])
    [tensor([2., 0.])]
    """
    parts = []
    for u, g in zip(own, joint, strict=True):
        product, square = _flat(u) @ _flat(g), _flat(g) @ _flat(g)
        share = torch.where(square > 0, product / square, 0.0)
        parts.append(torch.where(product < 0, 1.0, share).to(g.dtype) * g)
    return parts


def displacement(direction: Sequence[Tensor], radius: float, factor: Tensor) -> list[Tensor]:
    r"""Return by how much to move an encoder.

    .. math:: \epsilon = \rho\, \frac{d}{\|d\| + 10^{-12}}\, \kappa,
        \qquad \kappa = s \text{ if } s > 0 \text{, else } 1

    Args:
        direction: d, a tensor per parameter; the norm is over all of them.
        radius: the length :math:`\rho`.
        factor: the agreement s, shape ``()``.

    >>> displacement([torch.tensor([3.0]), torch.tensor([4.0])], 0.5, torch.tensor(-0.3))
    [tensor([0.3000]), tensor([0.4000])]
    """
    norm = torch.stack([_flat(d).norm() for d in direction]).norm()
    scale = radius / (norm + 1e-12) * torch.where(factor > 0, factor, 1.0)
    return [(d * scale).to(d.dtype) for d in direction]


def progress(loss: Tensor, last: Tensor, average: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    r"""Return how much each loss has decreased, and its running mean, shape ``(M,)`` each.

    .. math:: a_t = \mu\, a_{t-1} + (1 - \mu)\, \ell_t, \qquad \delta_t = \max(0, \ell_{t-1} - a_t)

    At the first loss the mean is that loss, and the decrease 0.

    Args:
        loss: of each modality, shape ``(M,)``; NaN where it has no samples: its decrease is 0.
        last: the loss before, NaN where there was none.
        average: the running mean before, likewise.
        momentum: :math:`\mu`, from 0 to below 1.

    >>> nothing = torch.tensor([torch.nan, 2.0])
    >>> progress(torch.tensor([1.0, 1.0]), nothing, nothing, 0.5)
    (tensor([0.0000, 0.5000]), tensor([1.0000, 1.5000]))
    """
    first = average.isnan()
    mean = torch.where(first, loss, momentum * average + (1 - momentum) * loss)
    decrease = torch.where(first | loss.isnan(), 0.0, (last - mean).clamp(min=0))
    return decrease, torch.where(loss.isnan(), average, mean)


def _flat(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
