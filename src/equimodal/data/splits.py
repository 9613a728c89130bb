"""A data set in three splits: one to train on, one to choose by, one to report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import DataLoader

from equimodal.data.arrays import Arrays
from equimodal.data.card import Card
from equimodal.data.scaling import standardised

# How a packed file and `partition` name the splits.
TRAIN, VAL, TEST = range(3)


class Samples(Protocol):
    """One split, in memory (`Arrays`) or read as it is needed (`Clips`)."""

    target: Tensor
    groups: Tensor | None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """For each modality the shape of a model's input, without the batch."""

    @property
    def transform(self) -> nn.Module:
        """Turns a batch of the loader into ``(inputs, ..., target)``, on the device it is on."""

    @property
    def names(self) -> Sequence[int | str]:
        """Which sample of its source each one is."""

    def loader(
        self, batch_size: int = 64, *, shuffle: bool = False, seed: int = 0, workers: int = 0
    ) -> DataLoader[Any]:
        """Return batches for `transform`."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Splits:
    """The training, validation and test samples of a data set.

    Args:
        train: to train on.
        val: to choose epochs and settings by.
        test: to report, once.
        classes: the name of each target value.
        card: source, licence, citation, and what was done.
        digest: of the file that the numbers come from, where it is the user's.
    """

    train: Samples
    val: Samples
    test: Samples
    classes: tuple[str, ...]
    card: Card
    digest: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""
        return self.train.modalities

    @property
    def fingerprint(self) -> str:
        """12 hex digits over which sample is in which split with which label, and over the file.

        To be printed beside results: the same fingerprint means the same task, whichever
        modalities were chosen.
        """
        of_file = [self.digest] if self.digest else []
        digest = hashlib.sha256(json.dumps([self.card.name, self.classes, *of_file]).encode())
        for name in ("train", "val", "test"):
            samples: Samples = getattr(self, name)
            members = [name, list(samples.names), samples.target.tolist()]
            digest.update(json.dumps(members).encode())
        return digest.hexdigest()[:12]

    def __str__(self) -> str:
        sizes = f"train {len(self.train)}, val {len(self.val)}, test {len(self.test)}"
        return f"{self.card.name} {self.fingerprint}: {sizes}; {', '.join(self.modalities)}"


def partition(
    features: Mapping[str, Tensor],
    target: Tensor,
    split: Tensor,
    *,
    classes: tuple[str, ...],
    card: Card,
    groups: Tensor | None = None,
    ids: Tensor | None = None,
) -> Splits:
    """Part the samples, standardised with the mean and standard deviation of the training split.

    Args:
        features: for each modality ``(N, C, ...)``, standardised per channel C.
        target: int64, shape ``(N,)``.
        split: `TRAIN`, `VAL` or `TEST` for each sample, int64, shape ``(N,)``.
        classes: the name of each target value.
        card: about the data set.
        groups: int64, shape ``(N,)``, or None.
        ids: int64, shape ``(N,)``: which sample of its source each one is; the positions if left
            out.
    """
    whole = Arrays(
        {name: standardised(feature, split == TRAIN) for name, feature in features.items()},
        target,
        groups,
        ids,
    )

    def part(which: int) -> Arrays:
        rows = (split == which).nonzero().flatten()
        return Arrays(
            {name: feature.index_select(0, rows) for name, feature in whole.features.items()},
            whole.target[rows],
            None if whole.groups is None else whole.groups[rows],
            whole.ids[rows],
        )

    return Splits(part(TRAIN), part(VAL), part(TEST), classes, card)
