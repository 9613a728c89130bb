"""Models to examine, with any number of modalities, and their data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from equimodal.diagnostics.subject import Subject

LETTERS = "abcdefghijkl"
WIDTH = 5


class Deep(nn.Module):
    """A head that is not linear."""

    def __init__(self, modalities: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(WIDTH * modalities, 16), nn.ReLU(), nn.Linear(16, classes)
        )

    def forward(self, *features: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat(features, dim=1))
        return logits


class Many(nn.Module):
    """An encoder per modality, named by a letter, and a head that takes the features in order."""

    def __init__(
        self, modalities: int = 3, classes: int = 4, head: nn.Module | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoders = nn.ModuleDict(
                {
                    name: nn.Sequential(nn.Linear(3, WIDTH), nn.Tanh())
                    for name in LETTERS[:modalities]
                }
            )
            self.head = head or Deep(modalities, classes)

    def features(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        pairs = zip(self.encoders.items(), inputs, strict=True)
        return {name: encoder(x) for (name, encoder), x in pairs}

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(*self.features(inputs).values())
        return logits

    def subject(self, **settings: Any) -> Subject:
        return Subject(self, dict(self.encoders.items()), self.head, **settings)


class Through(nn.Module):
    """Encoders that return what they are given: the features are the inputs."""

    def __init__(self, modalities: int, head: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: Scaled() for name in LETTERS[:modalities]})
        self.head = head

    def forward(self, *inputs: Tensor) -> Tensor:
        encoders = self.encoders.values()
        logits: Tensor = self.head(*(e(x) for e, x in zip(encoders, inputs, strict=True)))
        return logits

    def subject(self, **settings: Any) -> Subject:
        return Subject(self, dict(self.encoders.items()), self.head, **settings)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Sum(nn.Module):
    """A head that adds the features up: they are logits."""

    def forward(self, *features: Tensor) -> Tensor:
        return torch.stack(features).sum(dim=0)


def data(size: int = 60, modalities: int = 3, classes: int = 4, seed: int = 0) -> list[Tensor]:
    """Return inputs and target; the first modality tells most of it."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (size,), generator=generator)
    inputs = [
        torch.randn(size, 3, generator=generator) + target[:, None] / (m + 1)
        for m in range(modalities)
    ]
    return [*inputs, target]


def loader_of(tensors: Sequence[Tensor], size: int = 16, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), size, **options)
