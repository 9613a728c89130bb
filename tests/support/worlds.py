"""Small models with encoders and a head, and batches for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.testing import SmallModel as Net
from equimodal.testing import batch

__all__ = ["Net", "Silencing", "World", "batch", "train", "weights"]


class Silencing(eq.Method):
    """Another method that takes a modality away from every sample."""

    name = "silencing"

    def __init__(self, modality: str = "audio") -> None:
        super().__init__()
        self.modality = modality

    def gate(self, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {self.modality: features[self.modality].new_zeros(len(features[self.modality]))}


@dataclass
class World:
    """A model, its optimizer and how to balance it: made anew for every run."""

    modalities: int = 2
    classes: int = 3
    seed: int = 0
    dtype: torch.dtype = torch.float64
    lr: float = 0.1
    adam: bool = False
    head: nn.Module | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.model = Net(self.modalities, self.classes, self.head)
        if self.dtype != torch.float32:
            self.model.to(self.dtype)
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, lr=self.lr)
            if self.adam
            else torch.optim.SGD(parameters, lr=self.lr, momentum=0.9, weight_decay=1e-2)
        )

    @property
    def encoders(self) -> dict[str, nn.Module]:
        return dict(self.model.encoders.items())

    def balance(
        self,
        *methods: eq.Method,
        model: nn.Module | None = None,
        head: Any = None,
        **settings: Any,
    ) -> eq.Balancer:
        return eq.Balancer(
            list(methods),
            self.model if model is None else model,
            self.encoders,
            self.model.head if head is None else head,
            self.optimizer,
            **{"epochs": 100, **self.settings, **settings},
        )


def train(
    balancer: eq.Balancer,
    batches: Sequence[tuple[Tensor, ...]],
    micro: int = 1,
    model: nn.Module | None = None,
) -> None:
    """Train by the loop of the design, each batch cut into micro-batches."""
    (optimizer,) = balancer.optimizers
    model = balancer.attached.model if model is None else model
    for whole in batches:
        for _ in balancer.passes():
            for part in zip(*(tensor.chunk(micro) for tensor in whole), strict=True):
                *inputs, target = part
                loss = balancer.loss(model(*inputs), target)
                balancer.backward(loss / micro)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()


def weights(model: nn.Module) -> Tensor:
    """Return all parameters as one vector."""
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
