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
        return nn.Sequential(
            nn.Linear(shape[0], HIDDEN),
            *_norm(nn.BatchNorm1d(HIDDEN), normalised),
            nn.ReLU(),
            nn.Linear(HIDDEN, FEATURES),
        )
    if len(shape) == 2:  # channels, time
        lower = [
            *(
                nn.Conv1d(shape[0], 32, 5, stride=2, padding=2),
                *_norm(nn.BatchNorm1d(32), normalised),
                nn.ReLU(),
            ),
            *(
                nn.Conv1d(32, 32, 5, stride=2, padding=2),
                *_norm(nn.BatchNorm1d(32), normalised),
                nn.ReLU(),
            ),
        ]
        return nn.Sequential(*lower, Bins(4), nn.Linear(4 * 32, FEATURES))
    lower = [
        *(
            nn.Conv2d(shape[0], 12, 3, stride=2, padding=1),
            *_norm(nn.BatchNorm2d(12), normalised),
            nn.ReLU(),
        ),
        *(
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            *_norm(nn.BatchNorm2d(24), normalised),
            nn.ReLU(),
        ),
    ]
    return nn.Sequential(
        *lower, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * 24, FEATURES)
    )


def _norm(layer: nn.Module, wanted: bool) -> list[nn.Module]:
    return [layer] if wanted else []


class Bins(nn.Module):
    """The mean over each of some equal parts of time, flattened: shape ``(B, C, T)`` to ``(B, C n)``."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool1d(x, self.many).flatten(1)
