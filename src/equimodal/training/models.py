"""A model that suits a data set."""

from __future__ import annotations

from typing import Literal

import torch

from equimodal import nn
from equimodal.data import Splits

Fusion = Literal["concat", "sum", "late-average", "film", "gated"]
HEADS: dict[Fusion, type[nn.FusionHead]] = {
    "concat": nn.Concat,
    "sum": nn.Sum,
    "late-average": nn.LateAverage,
    "film": nn.FiLM,
    "gated": nn.Gated,
}
FEATURES = 64


def model_for(splits: Splits, fusion: Fusion = "concat", seed: int = 0) -> nn.Multimodal:
    """Return a small model for the modalities of a data set.

    Vectors get an MLP, signals, images and clips a CNN of their number of axes.

    Args:
        splits: the data.
        fusion: how the features are fused.
        seed: of the initial values; the global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = {
            name: _encoder(tuple(feature.shape[1:]))
            for name, feature in splits.train.features.items()
        }
        head = HEADS[fusion](dict.fromkeys(encoders, FEATURES), len(splits.classes))
        return nn.Multimodal(encoders, head)


def _encoder(shape: tuple[int, ...]) -> torch.nn.Module:
    if len(shape) == 1:
        return nn.MLP(shape[0], hidden=(128,), features=FEATURES)
    kind = {2: nn.CNN1d, 3: nn.CNN2d, 4: nn.CNN3d}[len(shape)]
    return kind(shape[0], FEATURES)
