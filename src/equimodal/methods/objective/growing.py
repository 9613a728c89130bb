"""Classifiers of single modalities that grow in number while they are trained."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.noise import mix
from equimodal.readout import feature_vectors, move, vector_width
from equimodal.step import Shapes


@dataclass(frozen=True)
class HiddenLayer:
    """A hidden layer that is trained, of the classifiers that are added in training."""

    def __call__(self, layer: nn.Linear, vectors: Tensor) -> Tensor:
        """Return hidden values of shape ``(B, width)``."""
        return F.relu(layer(vectors))


@dataclass(frozen=True)
class FixedHiddenLayer(HiddenLayer):
    """One that stays as it was drawn: what the released code of AUG trains with.

    It makes its optimizer before it adds classifiers, and never tells it of them.
    """

    def __call__(self, layer: nn.Linear, vectors: Tensor) -> Tensor:
        weight, bias = layer.weight.detach(), layer.bias.detach()
        return F.relu(F.linear(vectors, weight, bias))


class GrowingClassifiers(nn.Module):
    """Two-layer classifiers of every modality; the last layer is shared by all of all modalities.

    All that may ever be used are there from the start, so that optimizers, ranks and states know
    of them. One that is not in use yet is not run: its parameters have no gradient, and neither
    momentum nor weight decay moves them.

    Args:
        most: how many a modality may have, 1 or more.
        width: of the hidden layers.
        added: how the hidden layers of all but the first are used.
    """

    def __init__(self, most: int, width: int, added: HiddenLayer) -> None:
        super().__init__()
        self.most, self.width, self.added = most, width, added
        self.counts: dict[str, int] = {}
        self.hidden = nn.ModuleList()  # for each modality a list of `most` layers
        self.shared = nn.ModuleList()  # holds the last layer, once the number of classes is known

    def build(self, shapes: Shapes, seed: int) -> None:
        """Make the layers, once; their values follow from the seed alone."""
        if self.counts:
            return
        self.counts = dict.fromkeys(shapes.features, 1)
        with torch.random.fork_rng(devices=[]):
            for name, shape in shapes.features.items():
                torch.manual_seed(mix(seed, zlib.crc32(name.encode())))
                inputs = vector_width(shape)
                self.hidden.append(
                    nn.ModuleList(_linear(inputs, self.width, shapes) for _ in range(self.most))
                )
            torch.manual_seed(seed)
            self.shared.append(_linear(self.width, shapes.logits[-1], shapes))
        move(self, shapes.device)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Return for each modality the logits of its classifiers in use, shape ``(B, C)`` each."""
        (last,) = self.shared
        assert isinstance(last, nn.Linear)
        outputs: dict[str, list[Tensor]] = {}
        for (name, count), layers in zip(self.counts.items(), self.hidden, strict=True):
            assert isinstance(layers, nn.ModuleList)
            vectors = feature_vectors(features[name]).to(last.weight.dtype)
            outputs[name] = []
            for index, layer in enumerate(layers[:count]):
                assert isinstance(layer, nn.Linear)
                use = self.added if index else HiddenLayer()
                outputs[name].append(last(use(layer, vectors)))
        return outputs

    def grow(self, name: str) -> None:
        """Take one more classifier of a modality into use, unless all of them are."""
        self.counts[name] = min(self.counts[name] + 1, self.most)

    def get_extra_state(self) -> dict[str, int]:
        return dict(self.counts)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.counts = {name: int(count) for name, count in state.items()}


def _linear(inputs: int, outputs: int, shapes: Shapes) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, dtype=shapes.dtype)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
