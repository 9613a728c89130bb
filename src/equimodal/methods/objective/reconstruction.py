"""Features told from a prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equimodal.readout import move
from equimodal.step import Shapes


class Reconstruction(nn.Module):
    """Two layers from logits to the features of all modalities, side by side.

    Args:
        shapes: of one sample.
        widths: of the features.
        seed: of the initial values; the global random generator is left as it was.
    """

    def __init__(self, shapes: Shapes, widths: Sequence[int], seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(shapes.logits[-1], max(widths), bias=False, dtype=shapes.dtype)
            self.second = nn.Linear(max(widths), sum(widths), bias=False, dtype=shapes.dtype)
        move(self, shapes.device)

    def forward(self, logits: Tensor, vectors: Tensor) -> Tensor:
        """Return the mean squared error of every sample, shape ``(B,)``.

        Args:
            logits: shape ``(B, C)``.
            vectors: the features, shape ``(B, D)``.
        """
        told: Tensor = self.second(self.first(logits.to(self.first.weight.dtype)).relu())
        return (vectors - told).square().mean(dim=1)
