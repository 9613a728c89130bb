"""The shards of a split, memory-mapped: a copy in Arrow's format, made once for all processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from equimodal.data.batches.prepared import AGAIN, Prepared, Shard
from equimodal.data.batches.sample import Stored
from equimodal.errors import SetupError

CHUNK = 1 << 20
ROWS = 64  # to copy at a time
SOON = 2.0  # seconds of copying before a word of it
SELDOM = 60.0  # seconds from one word to the next in a log


class Shards:
    """The clips of a split, in memory-mapped files; each is opened when it is first needed.

    Args:
        files: Arrow files.
        rows: how many each holds.
        names: of the Parquet files that they were made from.
        kinds: of each modality that is wanted, such as "sound".
    """

    def __init__(
        self, files: Sequence[Path], rows: Sequence[int], names: Sequence[str], kinds: Any
    ) -> None:
        self.files = list(files)
        self.ends = list(accumulate(rows))
        self.names = list(names)
        self.kinds = dict(kinds)
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Stored:
        """Return a clip; nothing is copied from the file but its id and label."""
        index = range(len(self))[index]  # also counted from the end; an IndexError beyond it
        which = bisect_right(self.ends, index)
        if which not in self._open:
            self._open[which] = _mapped(self.files[which])
        row = index - (self.ends[which - 1] if which else 0)
        return stored(self._open[which][row], self.kinds, self.names[which])

    def joined(self, other: Shards) -> Shards:
        """Return these clips and then others."""
        rows = [end - start for those in (self, other) for start, end in those.spans]
        files, names = [*self.files, *other.files], [*self.names, *other.names]
        return Shards(files, rows, names, self.kinds)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The places of the first clip of each file, and of the one after its last."""
        return list(zip([0, *self.ends[:-1]], self.ends, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it maps the files itself."""
        return {**self.__dict__, "_open": {}}


def stored(row: Any, kinds: Any, shard: str) -> Stored:
    """Return the clip in a table of one row; the bytes are views of the table."""
    pieces = {}
    for name, kind in kinds.items():
        cell = row.column(name)[0]
        if not cell.is_valid:
            files = []
        elif kind in ("frames", "flow"):
            files = [each.as_buffer() for each in cell.values.field("bytes")]
        elif kind == "text":
            files = [cell.as_buffer()]
        else:
            files = [cell["bytes"].as_buffer()]
        pieces[name] = [] if any(file is None for file in files) else files
    return Stored(row.column("id")[0].as_py(), row.column("label")[0].as_py(), pieces, shard)


def mapped(told: Prepared) -> dict[str, list[Path]]:
    """Return Arrow copies of the shards of each split; they are made if they are not there.

    They are kept in ``.cache`` in the folder, or with the `datasets` library's own where that is
    not writable, by the hash of the shard: what has changed is made anew. One process makes them,
    others wait for it; one that is killed leaves no file that passes for whole.

    Raises:
        SetupError: a shard is missing or damaged, or there is no space.
    """
    from filelock import FileLock

    shards = [shard for of_split in told.splits.values() for shard in of_split]
    for shard in shards:
        if not Path(told.path(shard)).is_file():
            raise SetupError(f"{told.path(shard)} is missing: {AGAIN}")
    folder = _folder(told)
    wanted = {folder / f"{shard.sha256}.arrow": shard for shard in shards}
    if not all(path.exists() for path in wanted):
        with FileLock(folder / "lock"):
            for left in folder.iterdir():
                if left.suffix in {".arrow", ".partial"} and left not in wanted:
                    with contextlib.suppress(OSError):  # where open files cannot be removed
                        left.unlink()
            _copy_all(told, {path: of for path, of in wanted.items() if not path.exists()})
    return {
        split: [folder / f"{shard.sha256}.arrow" for shard in of_split]
        for split, of_split in told.splits.items()
    }


def _folder(told: Prepared) -> Path:
    inside = Path(told.root, ".cache")
    with contextlib.suppress(OSError):
        inside.mkdir(exist_ok=True)
        if os.access(inside, os.W_OK):
            return inside
    import datasets

    name = hashlib.sha256(repr(told.splits).encode()).hexdigest()[:16]
    folder = Path(datasets.config.HF_DATASETS_CACHE, "equimodal", name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy_all(told: Prepared, wanted: Mapping[Path, Shard]) -> None:
    """Copy shards; if that takes longer than a moment, with a bar on standard error."""
    from datasets.utils import tqdm  # which datasets.disable_progress_bars() switches off

    sizes = {path: Path(told.path(shard)).stat().st_size for path, shard in wanted.items()}
    with tqdm(
        desc=f"{told.root}: copying the shards for reading, once",
        total=sum(sizes.values()),
        unit="B",
        unit_scale=True,
        delay=SOON,
        miniters=1,
        mininterval=0.5 if sys.stderr.isatty() else SELDOM,
    ) as bar:
        for path, shard in wanted.items():
            _copy(told.path(shard), shard, path)
            bar.update(sizes[path])


def _copy(source: str, shard: Shard, path: Path) -> None:
    """Write a shard in Arrow's format, and make sure that it is what was prepared."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if _digest(source) != shard.sha256:
        raise SetupError(
            f"{source} is damaged: its bytes are not those that were prepared: remove it and "
            f"{AGAIN}"
        )
    partial = path.with_suffix(".partial")
    try:
        with pq.ParquetFile(source) as file, pa.OSFile(str(partial), "wb") as sink:
            if file.metadata.num_rows != shard.rows:
                raise SetupError(
                    f"{source}: expected {shard.rows} rows, found {file.metadata.num_rows}: {AGAIN}"
                )
            with pa.ipc.new_stream(sink, file.schema_arrow) as writer:
                for batch in file.iter_batches(ROWS):
                    writer.write_batch(batch)
        partial.replace(path)
    except pa.ArrowException as error:
        raise SetupError(f"{source} is damaged: {error}: remove it and {AGAIN}") from error
    except OSError as error:
        raise SetupError(
            f"{partial}: {error.strerror or error}: reading prepared clips needs space for a copy "
            "of the shards in Arrow's format, once"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(Path(path)):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _mapped(file: Path) -> Any:
    """Return a memory-mapped data set whose rows are tables of one row."""
    import datasets

    try:
        return datasets.Dataset.from_file(str(file)).with_format("arrow")
    except (OSError, ValueError) as error:
        raise SetupError(
            f"{file} is damaged: {error}: remove it; it is made anew from the shard"
        ) from error
