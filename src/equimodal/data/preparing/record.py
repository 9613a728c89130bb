"""What is known about a finished shard, in a small file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from equimodal import __version__
from equimodal.data.files.stored import digest_of
from equimodal.data.layouts.clip import Failure
from equimodal.data.preparing.folder import DATA, RECORDS
from equimodal.data.preparing.plan import Shard
from equimodal.data.preparing.remarks import Remark
from equimodal.system.files import write_whole

LIBRARIES = ("av", "datasets", "pillow", "pyarrow")  # that the bytes of a shard depend on


@dataclass(frozen=True)
class Record:
    """A finished shard.

    Args:
        file: relative to the folder.
        bytes: of the file.
        sha256: of the file, in hex.
        rows: in it.
        seconds: for each modality of sound the longest in it.
        failures: clips of the plan that are not in it.
        versions: of the libraries that made it.
        remarks: on clips that are in it.
    """

    file: str
    bytes: int
    sha256: str
    rows: int
    seconds: Mapping[str, float]
    failures: tuple[Failure, ...]
    versions: Mapping[str, str]
    remarks: tuple[Remark, ...] = ()


def shard_path(folder: Path, shard: Shard) -> Path:
    """Return where the shard is."""
    return folder / DATA / f"{shard.name}.parquet"


def write(folder: Path, shard: Shard, record: Record) -> None:
    """Note that the shard is finished."""
    write_whole(_path(folder, shard), json.dumps(asdict(record), indent=1) + "\n")


def finished(folder: Path, shard: Shard) -> Record | None:
    """Return what is known about a shard; None if it is missing, unfinished or damaged."""
    record = noted(folder, shard)
    if record is None:
        return None
    path = folder / record.file
    try:
        whole = path.stat().st_size == record.bytes and digest_of(path) == record.sha256
    except FileNotFoundError:
        return None
    return record if whole and path == shard_path(folder, shard) else None


def noted(folder: Path, shard: Shard) -> Record | None:
    """Return what is noted about a shard, whether it is as noted or not; None if nothing is."""
    try:
        held: dict[str, Any] = json.loads(_path(folder, shard).read_text())
        failures = tuple(Failure(**failure) for failure in held.pop("failures"))
        remarks = tuple(Remark(**remark) for remark in held.pop("remarks", ()))
        return Record(**held, failures=failures, remarks=remarks)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of equimodal and of the libraries that decode and write."""
    return {"equimodal": __version__, **{name: version(name) for name in LIBRARIES}}


def _path(folder: Path, shard: Shard) -> Path:
    return folder / RECORDS / f"{shard.name}.json"
