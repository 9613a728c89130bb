"""What every split of a data set offers, wherever its samples are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import Self  # comes with torch


class Samples(Dataset[Any]):
    """One split: in memory (`Arrays`), or read as it is needed (`Clips`).

    Attributes:
        target: classes, int64, shape ``(N,)``.
        groups: int64, shape ``(N,)``: what samples have in common that must not be in two splits;
            or None.
    """

    target: Tensor
    groups: Tensor | None

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """For each modality the shape of a model's input, without the batch."""

    @property
    @abstractmethod
    def names(self) -> Sequence[int | str]:
        """Which sample of its source each one is."""

    @property
    @abstractmethod
    def transform(self) -> nn.Module:
        """Turns a batch of the loader into ``(inputs, ..., target)``, on the device it is on."""

    @staticmethod
    @abstractmethod
    def collate(samples: Sequence[Any]) -> Any:
        """Return samples as one batch for `transform`."""

    @abstractmethod
    def loader(
        self, batch_size: int = 64, *, shuffle: bool = False, seed: int = 0, workers: int = 0
    ) -> DataLoader[Any]:
        """Return batches for `transform`; under `torch.distributed` those of this rank."""

    @abstractmethod
    def joined(self, other: Self) -> Self:
        """Return these samples and then those of another split, all as these are."""

    def __len__(self) -> int:
        return len(self.target)
