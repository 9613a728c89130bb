"""Prepared clips read one after the other, from a folder or from object storage."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset, get_worker_info

from equimodal.data.batches.again import Patience, passing
from equimodal.data.batches.epoch import Epoch
from equimodal.data.batches.passes import Passes, Rest
from equimodal.data.batches.prepared import AGAIN, Prepared, prepared
from equimodal.data.batches.sample import Maker, Sample, Stored, collate
from equimodal.data.batches.shards import stored
from equimodal.data.batches.transform import Transform
from equimodal.errors import SetupError, unknown
from equimodal.system import ranks
from equimodal.system.extras import require


class Stream(IterableDataset[Sample]):
    """The clips of one split in the order of the shards, without a copy of them on this machine.

    What a server or a network fails to give is asked for again, five times in a row within 16 s.

    Samples are those of `Clips`: the same in an epoch, and the same transform. Every process that
    reads, of all ranks and workers, goes through its own stretch of the shards. Shuffled, the
    shards come in another order every epoch, clips are drawn out of a buffer, and all processes
    have equally many: the few that remain, others in each epoch, are left out. In their own order
    every clip comes once. Which order it is depends on the number of processes.

    Args:
        told: what the prepared folder says of itself.
        split: "train", "val" or "test".
        maker: makes samples.
        shuffle: whether to.
        seed: from which orders, frames, crops and mirroring of all epochs follow.
        buffer: clips to draw from, in each process; they are kept as they are stored.

    Raises:
        SetupError: the buffer holds nothing.
    """

    def __init__(
        self, told: Prepared, split: str, maker: Maker, *, shuffle: bool, seed: int, buffer: int
    ) -> None:
        if buffer < 1:
            raise SetupError(f"buffer: expected 1 or more, found {buffer}")
        self.told = told
        self.split = split
        self.maker = maker
        self.shuffle = shuffle
        self.seed = seed
        self.buffer = buffer
        self.classes = told.classes
        self._epoch = Epoch()
        self._next = 0
        self._rest = Rest(1)
        self._rank = ranks.rank(), ranks.world_size()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""
        return tuple(self.maker.kinds)

    @property
    def transform(self) -> nn.Module:
        """Makes ``(input, ..., target)`` from a raw batch; see `Transform`."""
        return Transform(self.maker.kinds, self.maker.rates, self.maker.view)

    @property
    def epoch(self) -> int:
        """Which epoch it is."""
        return self._epoch.number

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch it is, and that the next pass of `loader` is."""
        self._epoch.set(epoch)
        self._next = epoch
        self._rest = Rest(1)

    def begin(self, rest: Rest | None = None) -> None:
        """Begin the epoch after the last one that was begun, or the rest of it; a loader does."""
        self.set_epoch(self._next)
        self._rest = rest or Rest(1)
        self._next += 1
        self._rank = ranks.rank(), ranks.world_size()  # workers cannot find out

    def loader(self, batch_size: int = 64, *, workers: int = 0, **settings: Any) -> Passes:
        """Return a DataLoader of raw batches; each pass is another epoch.

        ``loader.go_on(7, batches)`` makes the next pass the rest of epoch 7.

        Args:
            batch_size: samples per batch.
            workers: processes that read and decode; 0 to do so in this one.
            settings: of the DataLoader.
        """
        return Passes(
            self,
            batch_size=batch_size,
            num_workers=workers,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(self.seed),
            **settings,
        )

    def __iter__(self) -> Iterator[Sample]:
        epoch = self.epoch
        worker = get_worker_info()
        here, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        part, had = self._rest.of(here)
        rank, world = self._rank
        place, many = rank * workers + part, world * workers
        clips = self._clips(epoch, place, many)
        if self.shuffle:
            draw = random.Random(f"{self.seed}:{epoch}:{place} of {many}")
            clips = _out_of_a_buffer(clips, self.buffer, draw)
        for each in islice(clips, had, None):
            yield self.maker(each, self.seed, epoch)

    def stretch(self, place: int, many: int) -> range:
        """Return the places of the clips, in the order of the shards, of one of many processes."""
        size = sum(shard.rows for shard in self.told.splits[self.split])
        if self.shuffle:
            return range(place * (size // many), (place + 1) * (size // many))
        return range(place * size // many, (place + 1) * size // many)

    def _clips(self, epoch: int, place: int, many: int) -> Iterator[Stored]:
        """Yield the clips of one of many processes."""
        shards = list(self.told.splits[self.split])
        places = self.stretch(place, many)
        if self.shuffle:
            random.Random(f"{self.seed}:{epoch}").shuffle(shards)
            if not places:
                size = sum(shard.rows for shard in shards)
                raise SetupError(
                    f"{self.told.root}: {size} clips for {many} processes that read: use fewer"
                )
        first = 0
        for shard in shards:
            if first < places.stop and places.start < first + shard.rows:
                wanted = range(max(places.start - first, 0), min(places.stop - first, shard.rows))
                yield from _rows(self.told.path(shard), wanted, self.maker.kinds)
            first += shard.rows


def stream(
    location: str | os.PathLike[str],
    split: str = "train",
    *,
    modalities: Sequence[str] | None = None,
    shuffle: bool | None = None,
    seed: int = 0,
    buffer: int = 256,
    **changes: Any,
) -> Stream:
    """Return a split of a prepared data set to read one after the other.

    Args:
        location: the folder, or an address that fsspec knows: ``https://...`` of a server that
            answers requests for a range of bytes, ``s3://...`` with s3fs installed, and so on.
        split: "train", "val" or "test"; random in training, fixed otherwise.
        modalities: some of its modalities, in the order a sample shall have; all if left out.
        shuffle: whether to; the training split alone if left out.
        seed: from which orders, frames, crops and mirroring of all epochs follow.
        buffer: clips to draw from, in each process.
        changes: settings of the `View` that shall differ from the data set's.

    Raises:
        SetupError: there is no prepared data set, or a setting is unknown or out of its range.
        ImportError: a library is missing.
    """
    require("data", "fsspec", "numpy", "PIL", "pyarrow")
    told = prepared(os.fspath(location).rstrip("/"))
    if split not in told.splits:
        raise SetupError(unknown("split", split, told.splits))
    view = told.seen(changes)
    training = split == "train"
    maker = Maker(
        told.chosen(modalities), told.rates, told.lengths(view), view, training, told.partial
    )
    shuffled = training if shuffle is None else shuffle
    return Stream(told, split, maker, shuffle=shuffled, seed=seed, buffer=buffer)


def _rows(path: str, wanted: range, kinds: Any) -> Iterator[Stored]:
    """Yield some rows of a shard; if reading breaks off, it begins again after the last of them."""
    patience, had = Patience(path), wanted.start
    while True:
        try:
            for row in _read(path, range(had, wanted.stop), kinds):
                patience.reward()
                had += 1
                yield row
            return
        except Exception as error:
            patience.wait(error)


def _read(path: str, wanted: range, kinds: Any) -> Iterator[Stored]:
    """Yield some rows of a shard; row groups without any are not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fsspec: Any = import_module("fsspec")  # untyped
    try:
        with fsspec.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            first = 0
            for group in range(parquet.num_row_groups):
                rows = range(first, first + parquet.metadata.row_group(group).num_rows)
                first = rows.stop
                chosen = range(max(rows.start, wanted.start), min(rows.stop, wanted.stop))
                if chosen:
                    table = parquet.read_row_group(group, ["id", "label", *kinds])
                    for row in chosen:
                        yield _copied(stored(table.slice(row - rows.start, 1), kinds, path))
            if first < wanted.stop:
                raise SetupError(f"{path}: expected {wanted.stop} rows, found {first}: {AGAIN}")
    except FileNotFoundError as error:
        if passing(error):
            raise
        raise SetupError(f"{path} is missing: {AGAIN}") from None
    except pa.ArrowException as error:
        raise SetupError(f"{path} is damaged: {error}: remove it and {AGAIN}") from error


def _copied(clip: Stored) -> Stored:
    """Return the clip by itself: a view would keep its whole row group in memory."""
    return clip._replace(
        pieces={name: [bytes(file) for file in files] for name, files in clip.pieces.items()}
    )


def _out_of_a_buffer(clips: Iterator[Stored], size: int, draw: random.Random) -> Iterator[Stored]:
    held: list[Stored] = []
    for clip in clips:
        if len(held) < size:
            held.append(clip)
            continue
        place = int(draw.random() * size)
        yield held[place]
        held[place] = clip
    draw.shuffle(held)
    yield from held
