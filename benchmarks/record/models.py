"""Small encoders, plain or normalised, for the shapes of the record's data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.nn import Concat, Multimodal

HIDDEN, FEATURES = 64, 32


def model_of(shapes: Mapping[str, tuple[int, ...]], classes: int, normalised: bool) -> Multimodal:
    """Return a model whose initial values follow from torch's seed.

    Args:
        shapes: of each modality's input, without the batch.
        classes: how many.
        normalised: whether BatchNorm follows every layer of an encoder but the last.
    """
    encoders = {name: _encoder(shape, normalised) for name, shape in shapes.items()}
    return Multimodal(encoders, Concat(dict.fromkeys(shapes, FEATURES), classes=classes))


def _encoder(shape: tuple[int, ...], normalised: bool) -> nn.Module:
    if len(shape) == 1:
        lower = _layer(nn.Linear(shape[0], HIDDEN), nn.BatchNorm1d(HIDDEN), normalised)
        return nn.Sequential(*lower, nn.Linear(HIDDEN, FEATURES))
    if len(shape) == 2:  # channels, time
        layers = [
            each
            for width in (shape[0], 32)
            for each in _layer(
                nn.Conv1d(width, 32, 5, stride=2, padding=2), nn.BatchNorm1d(32), normalised
            )
        ]
        return nn.Sequential(*layers, Bins(4), nn.Linear(4 * 32, FEATURES))
    layers = [
        each
        for width, wide in ((shape[0], 12), (12, 24))
        for each in _layer(
            nn.Conv2d(width, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), normalised
        )
    ]
    pooled = (nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return nn.Sequential(*layers, *pooled, nn.Linear(16 * 24, FEATURES))


def _layer(linear: nn.Module, norm: nn.Module, normalised: bool) -> list[nn.Module]:
    return [linear, *([norm] if normalised else []), nn.ReLU()]


class Bins(nn.Module):
    """Means over equal parts of time, flattened: shape ``(B, C, T)`` to ``(B, C n)``."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool1d(x, self.many).flatten(1)
