"""A prepared folder as a data set in three splits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from equimodal.data.batches.clips import Clips
from equimodal.data.batches.prepared import AGAIN, FILE, Prepared, prepared
from equimodal.data.batches.sample import Maker
from equimodal.data.batches.shards import Shards, mapped
from equimodal.data.card import Card
from equimodal.data.splits import Splits
from equimodal.errors import SetupError
from equimodal.system.extras import require


def read(
    folder: str | os.PathLike[str], *, modalities: Sequence[str] | None = None, **changes: Any
) -> Splits[Clips]:
    """Return the training, validation and test clips of a prepared folder.

    The first to read it copies the shards to memory-mapped files; see `shards.mapped`.

    Args:
        folder: that `equimodal prepare` wrote.
        modalities: some of its modalities, in the order a sample shall have; all if left out.
        changes: settings of the `View` that shall differ from the folder's, such as ``frames=3``.

    Raises:
        SetupError: it is not a prepared data set, a file is missing or damaged, files are of
            different data sets, or a setting is unknown or out of its range.
        ImportError: a library is missing.
    """
    require("data", "datasets", "numpy", "PIL", "pyarrow")
    told = prepared(str(Path(folder)))
    view = told.seen(changes)
    kinds = told.chosen(modalities)
    files = mapped(told)
    columns = {split: _columns(told, split) for split in told.splits}
    codes = {
        group: number
        for number, group in enumerate(sorted({g for each in columns.values() for g in each[2]}))
    }

    def clips(split: str) -> Clips:
        ids, labels, groups = columns[split]
        shards = told.splits[split]
        names = [told.path(shard) for shard in shards]
        return Clips(
            Shards(files[split], [shard.rows for shard in shards], names, kinds),
            Maker(kinds, told.rates, told.lengths(view), view, split == "train", told.partial),
            torch.tensor(labels),
            torch.tensor([codes[group] for group in groups]),
            ids,
            told.classes,
        )

    train, val, test = (clips(split) for split in ("train", "val", "test"))
    splits = Splits(train, val, test, told.classes, _card(told, kinds))
    if splits.fingerprint != told.fingerprint:
        raise SetupError(
            f"{told.root}: {FILE} states the fingerprint {told.fingerprint}, the shards have "
            f"{splits.fingerprint}: they are of different data sets: {AGAIN}"
        )
    return splits


def _columns(told: Prepared, split: str) -> tuple[list[str], list[int], list[str]]:
    """Return ids, labels and groups: the only columns that are read as a whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, list[Any]] = {"id": [], "label": [], "group": []}
    for shard in told.splits[split]:
        path = told.path(shard)
        try:
            table = pq.read_table(path, columns=list(found), partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise SetupError(f"{path} is damaged: {error}: remove it and {AGAIN}") from error
        for name, values in found.items():
            if name not in table.column_names:
                raise SetupError(f"{path}: expected a column {name}, found none: {AGAIN}")
            values += table[name].to_pylist()
    if wrong := [each for each in found["label"] if not 0 <= each < len(told.classes)]:
        raise SetupError(
            f"{told.root}: label: expected 0 to {len(told.classes) - 1}, the places of the classes "
            f"in {FILE}, found {wrong[0]}: {AGAIN}"
        )
    return found["id"], found["label"], found["group"]


def _card(told: Prepared, kinds: Mapping[str, str]) -> Card:
    pieces = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    counts = ", ".join(
        f"{split} {sum(shard.rows for shard in told.splits[split]):,}"
        for split in ("train", "val", "test")
    )
    said = told.about
    unknown = "not stated."
    return Card(
        name=told.name,
        title=said.get("title", f"prepared clips in {told.root}"),
        content=f"{pieces}. {len(told.classes)} classes.",
        splits=f"{counts}: {told.protocol}",
        source=said.get("source", unknown),
        authors=said.get("authors", unknown),
        licence=said.get("licence", unknown),
        citation=said.get("citation", unknown),
        changes=told.changes,
        caution=said.get("caution", ""),
    )
