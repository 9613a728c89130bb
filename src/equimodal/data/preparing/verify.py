"""Whether a prepared folder holds what it did when it was finished."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from equimodal.data.files.stored import digest_of
from equimodal.data.fingerprint import fingerprint
from equimodal.data.preparing.folder import DATASET
from equimodal.errors import SetupError
from equimodal.system.extras import require


def verify(folder: Path) -> str:
    """Read all shards of a prepared folder, and return its fingerprint.

    Raises:
        SetupError: the folder is not a finished data set; or shards are missing or damaged, or
            hold other samples than dataset.json says: the message names them.
    """
    require("data", "pyarrow")
    pq: Any = import_module("pyarrow.parquet")  # untyped
    path = folder / DATASET
    if not path.is_file():
        raise SetupError(f"{folder}: expected {DATASET} of a finished data set, found none")
    try:
        dataset = json.loads(path.read_text())
        shards = [
            (split, folder / shard["file"], shard["sha256"])
            for split, found in dataset["splits"].items()
            for shard in found["shards"]
        ]
        stated = (dataset["name"], dataset["classes"], dataset["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path} is damaged: give the command that made it again") from error
    bad = [
        f"{shard.relative_to(folder)} ({'damaged' if shard.is_file() else 'missing'})"
        for _, shard, digest in shards
        if not shard.is_file() or digest_of(shard) != digest
    ]
    if bad:
        raise SetupError(
            f"{folder}: {len(bad)} of {len(shards)} shards are not as they were made: "
            f"{', '.join(bad)}. The command that made them makes these again"
        )
    members: dict[str, list[tuple[str, int]]] = {split: [] for split in dataset["splits"]}
    for split, shard, _ in shards:
        table = pq.read_table(shard, columns=["id", "label"])
        rows = zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
        members[split] += rows
    found = fingerprint(stated[0], stated[1], members)
    if found != stated[2]:
        raise SetupError(
            f"{path} states the fingerprint {stated[2]}, the shards have {found}: give the command "
            "that made it again"
        )
    return found
