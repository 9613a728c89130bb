"""Late fusion with weights: the modalities' own answers, mixed as validation data says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

PARTS = 10  # weights are multiples of a tenth


def weights_on(
    alone: Mapping[str, Tensor], targets: Tensor, score: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """Return the weights, adding up to 1, whose mixture scores highest; the most even of several.

    Args:
        alone: what each modality answers by itself, logits of shape ``(N, C)``.
        targets: shape ``(N,)``.
        score: of outputs and targets; higher is better.
    """
    even = 1 / len(alone)
    tried = []
    for parts in itertools.product(range(PARTS + 1), repeat=len(alone)):
        if sum(parts) == PARTS:
            weights = dict(zip(alone, [part / PARTS for part in parts], strict=True))
            found = float(score(weighed(alone, weights), targets).mean())
            tried.append((found, -sum((w - even) ** 2 for w in weights.values()), weights))
    return max(tried, key=lambda each: each[:2])[2]


def weighed(alone: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the mixture: of log-probabilities where there are classes, of outputs where not."""
    outputs = [
        weights[name] * (each.log_softmax(dim=1) if each.ndim > 1 and each.shape[1] > 1 else each)
        for name, each in alone.items()
    ]
    return torch.stack(outputs).sum(dim=0)
