"""k-means: groups of points around their means, found from seeded starts."""

from __future__ import annotations

import torch
from torch import Tensor


def spread_centres(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    r"""Draw points to start k-means from (k-means++, Arthur and Vassilvitskii, SODA 2007).

    Each next centre is a point drawn with a probability proportional to its squared distance to the
    nearest centre so far.

    Args:
        points: shape ``(N, D)``.
        clusters: K, at least 1. Where fewer points differ, centres repeat.
        generator: on the CPU; K numbers are drawn from it.

    Returns:
        Shape ``(K, D)``.

    >>> points = torch.tensor([[0.0], [0.0], [9.0]])
    >>> spread_centres(points, 2, torch.Generator().manual_seed(0)).sort(dim=0).values.flatten()
    tensor([0., 9.])
    """
    draws = torch.rand(clusters, dtype=torch.float64, generator=generator).to(points)
    chosen = [points[(draws[0] * len(points)).long().clamp(max=len(points) - 1)]]
    nearest = (points - chosen[0]).square().sum(dim=1)
    for draw in draws[1:]:
        reached = nearest.cumsum(dim=0)
        index = torch.searchsorted(reached, draw * reached[-1], right=True)
        chosen.append(points[index.clamp(max=len(points) - 1)])
        nearest = torch.minimum(nearest, (points - chosen[-1]).square().sum(dim=1))
    return torch.stack(chosen)


def lloyd(points: Tensor, centres: Tensor, iterations: int = 300) -> tuple[Tensor, Tensor]:
    r"""Move centres to the means of their points until no point changes its centre (Lloyd, 1982).

    A centre without points stays where it is.

    Args:
        points: shape ``(N, D)``.
        centres: shape ``(K, D)``.
        iterations: at most.

    Returns:
        The centre of each point, shape ``(N,)``, int64, and the sum of squared distances, ``()``.

    >>> labels, inertia = lloyd(torch.tensor([[0.0], [1.0], [8.0]]), torch.tensor([[0.0], [1.0]]))
    >>> labels, inertia
    (tensor([0, 0, 1]), tensor(0.5000))
    """
    exact = "donot_use_mm_for_euclid_dist"  # points far from zero would lose their digits
    labels = torch.cdist(points, centres, compute_mode=exact).argmin(dim=1)
    for _ in range(iterations):
        counts = torch.bincount(labels, minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add(0, labels, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        previous, labels = labels, torch.cdist(points, centres, compute_mode=exact).argmin(dim=1)
        if torch.equal(labels, previous):
            break
    return labels, (points - centres[labels]).square().sum()


def kmeans(
    points: Tensor, clusters: int, seed: int = 0, restarts: int = 10, iterations: int = 300
) -> Tensor:
    """Group points around K means: the best of several seeded starts.

    Args:
        points: shape ``(N, D)``, N at least 1.
        clusters: K.
        seed: of the starts, drawn by k-means++. Equal seeds give equal groups.
        restarts: how many starts; the smallest sum of squared distances wins, the first of equals.
        iterations: of Lloyd's algorithm for each start, at most.

    Returns:
        The group of each point, shape ``(N,)``, int64 from 0 to K - 1.

    >>> kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2).diff().abs()
    tensor([0, 1, 0])
    """
    generator = torch.Generator().manual_seed(seed)
    found = [
        lloyd(points, spread_centres(points, clusters, generator), iterations)
        for _ in range(restarts)
    ]
    best = torch.stack([inertia for _, inertia in found]).argmin()
    return torch.stack([labels for labels, _ in found])[best]
