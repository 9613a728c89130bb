"""One split of a prepared data set, as a torch data set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equimodal.data.batches.epoch import Epoch
from equimodal.data.batches.order import Order
from equimodal.data.batches.sample import Maker, Sample, collate
from equimodal.data.batches.shards import Shards
from equimodal.data.batches.transform import Transform
from equimodal.data.batches.view import View
from equimodal.data.samples import Samples


class Clips(Samples):
    """The clips of one split.

    A sample is raw: sound as int16, frames as pixels with the crop that was drawn for them.
    `transform` makes the inputs of a model from a batch of them, on its device::

        for batch in clips.loader(64, workers=2):
            audio, visual, target = clips.transform(batch, device)

    What is random in a sample follows from the seed, the epoch and the id of its clip.

    Args:
        stored: the clips.
        maker: makes samples from them.
        target: int64, shape ``(N,)``.
        groups: int64, shape ``(N,)``: what samples have in common that must not be in two splits.
        ids: of the clips.
        classes: the name of each target value.
    """

    def __init__(
        self,
        stored: Shards,
        maker: Maker,
        target: Tensor,
        groups: Tensor,
        ids: Sequence[str],
        classes: Sequence[str],
    ) -> None:
        self.stored = stored
        self.maker = maker
        self.target = target
        self.groups = groups
        self.ids = list(ids)
        self.classes = tuple(classes)
        self._epoch = Epoch()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""
        return tuple(self.maker.kinds)

    @property
    def names(self) -> list[str]:
        """Which clip each sample is, as `ids`."""
        return self.ids

    @property
    def view(self) -> View:
        """How samples look."""
        return self.maker.view

    @property
    def transform(self) -> nn.Module:
        """Makes ``(input, ..., target)`` from a raw batch; see `Transform`."""
        return Transform(self.maker.kinds, self.maker.rates, self.maker.view)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each input of a model, without the batch."""
        *inputs, _ = self.transform(collate([self[0]]))
        return {
            name: tuple(one.shape[1:]) for name, one in zip(self.modalities, inputs, strict=True)
        }

    @property
    def epoch(self) -> int:
        """Which epoch it is."""
        return self._epoch.number

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Say which epoch it is, and the seed if it is another: to the workers of loaders too."""
        self._epoch.set(epoch, seed)

    def __getitem__(self, index: int) -> Sample:
        """Return one raw sample: a piece per modality, then the target, an int64 tensor ``()``."""
        return self.maker(self.stored[index], self._epoch.seed, self._epoch.number)

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Sample:
        """Return samples as one raw batch, each part with a first axis B.

        For ``DataLoader(clips, ..., collate_fn=Clips.collate)``; such a loader must call
        `set_epoch` itself.
        """
        return collate(samples)

    def loader(
        self,
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        rank: int | None = None,
        world: int | None = None,
        **settings: Any,
    ) -> DataLoader[Sample]:
        """Return a DataLoader of raw batches; the last one of an epoch may be short.

        Epochs are the same for any number of workers. Under DDP each rank has its own part; see
        `Order`, which is the sampler: ``loader.sampler.set_epoch(7)`` makes the next pass the one
        of epoch 7, ``loader.sampler.go_on(7, batches * batch_size)`` the rest of it. The loader
        has a data set of its own, on the same files, that knows its epoch. The global random
        generator is neither read nor moved.

        Args:
            batch_size: samples per batch.
            shuffle: in another order every epoch, instead of as they are.
            seed: from which orders, frames, crops and mirroring of all epochs follow.
            workers: processes that decode; 0 to decode in this one.
            rank: see `Order`.
            world: see `Order`.
            settings: of the DataLoader: ``persistent_workers``, ``pin_memory``,
                ``multiprocessing_context`` and the like.
        """
        clips = copy.copy(self)
        clips._epoch = Epoch()
        clips.set_epoch(0, seed)
        return DataLoader(
            clips,
            batch_size=batch_size,
            sampler=Order(clips, seed, shuffle=shuffle, rank=rank, world=world),
            num_workers=workers,
            collate_fn=self.collate,
            generator=torch.Generator().manual_seed(seed),
            **settings,
        )

    def joined(self, other: Clips) -> Clips:
        """Return these clips and then those of another split, all seen as these are."""
        groups, others = self.groups, other.groups
        assert groups is not None
        assert others is not None
        return Clips(
            self.stored.joined(other.stored),
            self.maker,
            torch.cat([self.target, other.target]),
            torch.cat([groups, others]),
            [*self.ids, *other.ids],
            self.classes,
        )

    def __repr__(self) -> str:
        shapes = (f"{name} {shape}" for name, shape in self.shapes.items())
        return f"Clips({len(self)} samples: {', '.join(shapes)})"
