"""Aligned modalities in memory as a torch data set, quick to batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equimodal.data.batches.order import Order
from equimodal.data.samples import Samples
from equimodal.errors import SetupError

Sample = tuple[Tensor, ...]


class Rows(Sequence[Sample]):
    """Samples that were picked together: a sequence of samples to anyone, already a batch to us.

    Any collate function may take it for a list of samples; `collate` takes the batch that is there
    and spares the stacking.
    """

    def __init__(self, batch: Sample) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch[0])

    @cached_property
    def samples(self) -> list[Sample]:
        """The samples one by one; kept, because the default collate function reads them twice."""
        return list(zip(*(part.unbind() for part in self.batch), strict=True))

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


class Arrays(Samples):
    """Samples of several modalities, each a tensor over all samples.

    Args:
        features: for each modality a tensor of shape ``(N, ...)``; a sample lists them in this
            order.
        target: int64, shape ``(N,)``.
        groups: int64, shape ``(N,)``: what samples have in common that must not be in two splits,
            for instance the subject; or None.
        ids: int64, shape ``(N,)``: which sample of its source each one is; the positions if left
            out.

    Raises:
        SetupError: there is no modality, the tensors do not have one length, or the target is not
            int64.

    >>> arrays = Arrays({"audio": torch.zeros(3, 8), "visual": torch.ones(3, 2)}, torch.arange(3))
    >>> arrays
    Arrays(3 samples: audio (8,), visual (2,))
    >>> audio, visual, target = arrays[2]
    >>> target
    tensor(2)
    >>> for audio, visual, target in arrays.loader(batch_size=2):
    ...     print(tuple(audio.shape), tuple(visual.shape), target.tolist())
    (2, 8) (2, 2) [0, 1]
    (1, 8) (1, 2) [2]
    """

    def __init__(
        self,
        features: Mapping[str, Tensor],
        target: Tensor,
        groups: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> None:
        if not features:
            raise SetupError("features: expected at least one modality, found none")
        if target.dtype != torch.int64 or target.ndim != 1:
            shape = tuple(target.shape)
            raise SetupError(f"target: expected int64 of shape (N,), found {target.dtype}, {shape}")
        self.features = dict(features)
        self.target = target
        self.groups = groups
        self.ids = torch.arange(len(target)) if ids is None else ids
        named = {f"features['{name}']": feature for name, feature in self.features.items()}
        for name, tensor in {**named, "groups": groups, "ids": self.ids}.items():
            if tensor is not None and (tensor.ndim == 0 or len(tensor) != len(target)):
                found = tuple(tensor.shape)
                raise SetupError(f"{name}: expected {len(target)} samples, found shape {found}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""
        return tuple(self.features)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """For each modality the shape of a model's input, without the batch."""
        return {name: tuple(feature.shape[1:]) for name, feature in self.features.items()}

    @property
    def names(self) -> list[int]:
        """Which sample of its source each one is, as `ids`."""
        found: list[int] = self.ids.tolist()
        return found

    @property
    def transform(self) -> nn.Module:
        """What turns a batch into the inputs of a model and the target: here it is that already."""
        return nn.Identity()

    def __getitem__(self, index: int) -> Sample:
        """Return one sample: the features in order, then the target, an int64 tensor ``()``."""
        return (*(feature[index] for feature in self.features.values()), self.target[index])

    def __getitems__(self, indices: Sequence[int]) -> Rows:
        """Return several samples at once; torch's DataLoader asks for a batch in this way."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        parts = (*self.features.values(), self.target)
        # Not part[index]: that starts torch's threads for every batch, a thousandfold slower on a
        # machine whose cores are busy.
        return Rows(tuple(part.index_select(0, index) for part in parts))

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Sample:
        """Return the samples as one batch: ``(features, ..., target)``, each with a first axis B.

        For ``DataLoader(arrays, ..., collate_fn=Arrays.collate)``. The default collate function
        gives the same values, but takes the batch apart and stacks it again.
        """
        if isinstance(samples, Rows):
            return samples.batch
        return tuple(torch.stack(part) for part in zip(*samples, strict=True))

    def loader(
        self, batch_size: int = 64, *, shuffle: bool = False, seed: int = 0, workers: int = 0
    ) -> DataLoader[Sample]:
        """Return a DataLoader of ``(features, ..., target)`` batches; the last one may be short.

        The global random generator is neither read nor moved. Under `torch.distributed` every rank
        has its own part. See `equimodal.data.Order` for what follows from the sampler.

        Args:
            batch_size: samples per batch.
            shuffle: in another order every epoch, instead of as they are.
            seed: from which the orders of all epochs follow.
            workers: processes that read; none is right for samples in memory.
        """
        return DataLoader(
            self,
            batch_size=batch_size,
            sampler=Order(self, seed, shuffle=shuffle),
            num_workers=workers,
            collate_fn=self.collate,
            generator=torch.Generator().manual_seed(seed),
        )

    def part(self, rows: Tensor) -> Arrays:
        """Return some samples, by their places: int64, shape ``(N,)``."""
        return Arrays(
            {name: feature.index_select(0, rows) for name, feature in self.features.items()},
            self.target[rows],
            None if self.groups is None else self.groups[rows],
            self.ids[rows],
        )

    def joined(self, other: Arrays) -> Arrays:
        """Return these samples and then those of another split."""

        def both(one: Tensor, two: Tensor) -> Tensor:
            return torch.cat([one, two])

        groups = None
        if self.groups is not None and other.groups is not None:
            groups = both(self.groups, other.groups)
        return Arrays(
            {name: both(part, other.features[name]) for name, part in self.features.items()},
            both(self.target, other.target),
            groups,
            both(self.ids, other.ids),
        )

    def __repr__(self) -> str:
        shapes = (f"{name} {shape}" for name, shape in self.shapes.items())
        return f"Arrays({len(self)} samples: {', '.join(shapes)})"
