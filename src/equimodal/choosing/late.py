"""Late fusion with weights: the modalities' own answers, mixed as validation data says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from equimodal.criterion.kind import excludes

PARTS = 10  # weights are multiples of a tenth


def weights_on(
    alone: Mapping[str, Tensor],
    targets: Tensor,
    score: Callable[[Tensor, Tensor], Tensor],
    loss: Callable[..., Tensor],
) -> dict[str, float]:
    """Return the weights, adding up to 1, whose mixture scores highest; the most even of several.

    Args:
        alone: what each modality answers by itself, logits of shape ``(N, C)``.
        targets: shape ``(N,)``.
        score: of outputs and targets; higher is better.
        loss: by which they were trained.
    """
    even = 1 / len(alone)
    tried = []
    for parts in itertools.product(range(PARTS + 1), repeat=len(alone)):
        if sum(parts) == PARTS:
            weights = dict(zip(alone, [part / PARTS for part in parts], strict=True))
            found = float(score(weighed(alone, weights, loss), targets).mean())
            tried.append((found, -sum((w - even) ** 2 for w in weights.values()), weights))
    return max(tried, key=lambda each: each[:2])[2]


def weighed(
    alone: Mapping[str, Tensor], weights: Mapping[str, float], loss: Callable[..., Tensor]
) -> Tensor:
    """Return the mixture: of log-probabilities where one class is right, of outputs where not."""
    exclusive = excludes(loss)
    outputs = [
        weights[name]
        * (each.log_softmax(dim=1) if exclusive and each.ndim > 1 and each.shape[1] > 1 else each)
        for name, each in alone.items()
    ]
    return torch.stack(outputs).sum(dim=0)
