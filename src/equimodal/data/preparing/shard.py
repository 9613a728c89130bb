"""One shard: its clips decoded one after the other into a Parquet file, which appears whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from equimodal.data.files.stored import digest_of
from equimodal.data.layouts.clip import Clip, Failure, paths_of
from equimodal.data.preparing import record
from equimodal.data.preparing.plan import ABSENT, Shard, Stamp, stamped
from equimodal.data.preparing.recipe import Recipe
from equimodal.data.preparing.record import Record
from equimodal.data.preparing.remarks import Remark
from equimodal.data.preparing.rows import Decoded, Row, UnfitError, decoded
from equimodal.errors import SetupError
from equimodal.system.files import partial_of, publish, settle

GROUP = 16  # rows that are read, and held while preparing, at once
# JPEG does not get smaller, and dictionaries and statistics of it would be of no use. All that the
# bytes of a file depend on is said, so that they do not change with a default.
SETTINGS: dict[str, Any] = {
    "version": "2.6",
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": ["id", "label", "group"],
    "data_page_version": "1.0",
    "store_schema": True,
}


@dataclass(frozen=True)
class Task:
    """What all shards of a data set have in common.

    Args:
        root: the source folder.
        folder: to prepare into.
        recipe: how clips are decoded.
        labels: the target of each class.
        schema: of the Parquet files.
    """

    root: Path
    folder: Path
    recipe: Recipe
    labels: Mapping[str, int]
    schema: Any


def make(
    shard: Shard, task: Task, crashed: Mapping[str, str], tell: Callable[[int], None]
) -> Record:
    """Decode the clips of a shard and write it.

    Memory is that of `GROUP` clips, however many the shard has.

    Args:
        shard: which.
        task: how.
        crashed: ids of clips that cost the process of their decoder, with the reason.
        tell: is called with the place of each clip before it is decoded, and with their number
            when all are.

    Raises:
        SetupError: a file has changed since the plan was made.
        OSError: a file cannot be read, or the shard not written; nothing is left of it.
    """
    pa: Any = import_module("pyarrow")  # untyped
    pq: Any = import_module("pyarrow.parquet")
    path = record.shard_path(task.folder, shard)
    # Of its own: a machine that is taken for dead may write beside the one that took over.
    partial = partial_of(path.with_name(f"{path.name}.{uuid4().hex}"))
    failures: list[Failure] = []
    remarks: list[Remark] = []
    longest: dict[str, float] = {}
    rows: list[Row] = []
    try:
        with partial.open("wb") as file:
            with pq.ParquetWriter(file, task.schema, **SETTINGS) as writer:

                def write() -> None:
                    if rows:
                        writer.write_table(pa.Table.from_pylist(rows, schema=task.schema))
                        rows.clear()

                for place, clip in enumerate(shard.clips):
                    tell(place)
                    try:
                        made = _decoded(clip, task, shard.stamps, crashed)
                    except UnfitError as unfit:
                        failures.append(Failure(clip.id, unfit.path, clip.split, unfit.reason))
                        continue
                    rows.append(made.row)
                    remarks += [Remark(clip.id, path, clip.split, r) for path, r in made.remarks]
                    for name, length in made.seconds.items():
                        longest[name] = max(length, longest.get(name, 0.0))
                    if len(rows) == GROUP:
                        write()
                tell(len(shard.clips))
                write()
            file.flush()
            settle(file.fileno())
        publish(path, partial)
    finally:
        partial.unlink(missing_ok=True)
    finished = Record(
        path.relative_to(task.folder).as_posix(),
        path.stat().st_size,
        digest_of(path),
        len(shard.clips) - len(failures),
        longest,
        tuple(failures),
        record.versions(),
        tuple(remarks),
    )
    record.write(task.folder, shard, finished)
    return finished


def _decoded(
    clip: Clip, task: Task, stamps: Mapping[str, Stamp], crashed: Mapping[str, str]
) -> Decoded:
    paths = dict.fromkeys(path for piece in clip.pieces.values() for path in paths_of(piece))
    if clip.id in crashed:
        raise UnfitError(next(iter(paths)), crashed[clip.id])
    for path in paths:
        stamp = stamped(task.root / path)
        if stamp == ABSENT != stamps[path]:
            raise SetupError(f"{task.root}: {path} is gone since preparing began")
        if stamp != stamps[path]:
            raise SetupError(f"{task.root}: {path} has changed since preparing began")
    return decoded(clip, task.root, task.recipe, task.labels[clip.label])
