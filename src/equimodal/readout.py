"""Linear classifiers on the features of single modalities."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.noise import mix
from equimodal.step import Shapes


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module to the device of the features, where it is not there yet."""
    if device.type != "cpu":
        module.to(device)


def feature_vectors(feature: Tensor) -> Tensor:
    """Pool a feature to one vector per sample, shape ``(B, D)``.

    Maps ``(B, C, H, W)`` and ``(B, C, T, H, W)`` are averaged over space and time, sequences
    ``(B, T, D)`` over their steps; vectors are returned as they are.
    """
    if feature.ndim <= 2:
        return feature.reshape(feature.shape[0], -1)
    return feature.mean(dim=1) if feature.ndim == 3 else feature.flatten(2).mean(dim=2)


def vector_width(shape: tuple[int, ...]) -> int:
    """Return the width of what `feature_vectors` makes of a feature.

    Args:
        shape: of one sample, without the batch dimension.

    >>> vector_width((512,)), vector_width((512, 7, 7)), vector_width((16, 768)), vector_width(())
    (512, 512, 768, 1)
    """
    return shape[-1] if len(shape) == 2 else shape[0] if shape else 1


class Readouts(nn.Module):
    """One linear layer per modality, from its pooled feature to logits of the model's shape.

    The layers are made when the shapes are known: `build` is called by the balancer at the first
    step, or before a state is restored. Their initial values follow from the seed and the name of
    the modality alone, whatever the order of the modalities and the state of the global random
    generator, which is left as it was.

    Args:
        bias: whether the layers have one.
    """

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.bias = bias
        self.names: tuple[str, ...] = ()
        self.shape: tuple[int, ...] = ()
        self.layers = nn.ModuleList()

    def build(self, shapes: Shapes, seed: int) -> None:
        """Make the layers, once."""
        if self.names:
            return
        self.names, self.shape = tuple(shapes.features), shapes.logits
        with torch.random.fork_rng(devices=[]):
            for name, shape in shapes.features.items():
                torch.manual_seed(mix(seed, zlib.crc32(name.encode())))
                width = vector_width(shape)
                layer = nn.Linear(width, math.prod(self.shape), self.bias, dtype=shapes.dtype)
                self.layers.append(layer)
        move(self, shapes.device)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each modality logits of shape ``(B, *logits)``."""
        outputs = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            assert isinstance(layer, nn.Linear)
            vectors = feature_vectors(features[name]).to(layer.weight.dtype)
            outputs[name] = layer(vectors).view(-1, *self.shape)
        return outputs
