"""A `worlds.World` with a linear classifier per modality, as a user would write it down."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.noise import mix
from support.worlds import World


class ByHand:
    """The model and its classifiers, which start where those of a method do, with SGD for each."""

    def __init__(self, world: World, seed: int = 0) -> None:
        self.model = world.model
        self.optimizer = world.optimizer
        self.names = tuple(world.encoders)
        widths = dict.fromkeys(self.names, (8,))
        shapes = eq.Shapes(widths, (world.classes,), torch.device("cpu"), world.dtype)
        readouts = eq.Readouts()
        readouts.build(shapes, mix(seed, 1))
        self.heads = readouts.layers
        self.own = another_sgd(self.heads)

    def features(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        encoders = self.model.encoders.values()
        return [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]

    def logits(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Those of each modality alone, and the joint ones."""
        features = self.features(inputs)
        alone = [head(f) for head, f in zip(self.heads, features, strict=True)]
        return alone, self.model.head(torch.cat(features, dim=1))

    def losses(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Cross-entropies: of each modality alone, then the joint one."""
        *inputs, target = batch
        alone, joint = self.logits(inputs)
        return [F.cross_entropy(each, target) for each in (*alone, joint)]

    def backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.own.zero_grad()
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.own.step()

    def copied(self) -> ByHand:
        """Model, classifiers and the optimizer of the model; that of the classifiers is new."""
        other = copy.copy(self)
        other.model, other.heads = copy.deepcopy(self.model), copy.deepcopy(self.heads)
        other.optimizer, other.own = another_sgd(other.model), another_sgd(other.heads)
        other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return other


def another_sgd(module: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
