"""Parts that were prepared into a folder each, as one data set: a dataset.json above them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from equimodal.data.batches.prepared import AGAIN, prepared
from equimodal.data.fingerprint import Member, fingerprint
from equimodal.data.layouts.clip import Failure
from equimodal.data.layouts.collected import some
from equimodal.data.preparing import failures as left_out
from equimodal.data.preparing.card import card
from equimodal.data.preparing.changes import changes
from equimodal.data.preparing.folder import CARD, DATASET, FAILURES, PLAN
from equimodal.data.preparing.plan import SPLITS
from equimodal.data.preparing.summary import Summary
from equimodal.errors import SetupError
from equimodal.system.extras import require
from equimodal.system.files import write_whole

ALIKE = ("format", "name", "classes", "modalities", "rates", "recipe", "view")


def join(folder: Path) -> Summary:
    """Make one data set of all prepared folders that are in a folder, in the order of their names.

    Only ids, labels and groups are read, and held: 0.7 kB for each clip.

    Args:
        folder: that the parts are in. It gets a dataset.json, a card and a list of failures, which
            replace those of an earlier call.

    Returns:
        What the whole is.

    Raises:
        SetupError: there are fewer than two parts, one is unfinished or damaged; they differ in
            recipe, classes or the like; an id is in two of them; or a group is in two splits,
            though in no part by itself.
    """
    require("data", "fsspec", "pyarrow")
    parts = _parts(folder)
    held = [json.loads((part / DATASET).read_text()) for part in parts]
    first = {key: held[0][key] for key in ALIKE}
    for part, said in zip(parts, held, strict=True):
        if found := changes(first, {key: said[key] for key in ALIKE}):
            raise SetupError(
                f"{folder}: expected parts that were prepared alike, found {part.name} other than "
                f"{parts[0].name}: {'; '.join(found)}"
            )
    failures = [failure for part in parts for failure in _failures(part)]
    whole = {
        **first,
        "protocol": f"{len(parts)} parts: {some(list(dict.fromkeys(s['protocol'] for s in held)))}",
        "seconds": {name: max(said["seconds"][name] for said in held) for name in first["rates"]},
        "splits": {split: _split(split, parts, held) for split in SPLITS},
        "failures": len(failures),
        "fingerprint": fingerprint(
            first["name"],
            first["classes"],
            _members(folder, parts, held, (failure.id for failure in failures)),
        ),
        "about": _texts([said["about"] for said in held]),
        "versions": _texts([said["versions"] for said in held]),
    }
    text = json.dumps(whole, indent=1) + "\n"
    reasons = left_out.reasons(failures)
    left_out.write(folder, failures)
    write_whole(folder / CARD, card(whole, text, reasons))
    write_whole(folder / DATASET, text)
    shards = [shard for split in SPLITS for shard in whole["splits"][split]["shards"]]
    size = sum((folder / shard["file"]).stat().st_size for shard in shards)
    return Summary(folder, whole, reasons, size, 0)


def _parts(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SetupError(f"{folder}: expected a folder that holds the parts, found none")
    if (folder / PLAN).exists():
        raise SetupError(f"{folder} was prepared itself: expected the folder that holds the parts")
    mine = [name for name in (CARD, FAILURES) if (folder / name).exists()]
    if mine and not (folder / DATASET).exists():
        raise SetupError(f"{folder}: {mine[0]} would be written over: move it")
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    parts = [path for path in inside if (path / DATASET).exists() or (path / PLAN).exists()]
    if len(parts) < 2:
        found = some([part.name for part in parts]) or "none"
        raise SetupError(f"{folder}: expected two prepared folders or more in it, found {found}")
    for part in parts:
        prepared(str(part))  # refuses what is unfinished or damaged
    return parts


def _failures(part: Path) -> list[Failure]:
    path = part / FAILURES
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Failure(**row) for row in csv.DictReader(file)]


def _split(split: str, parts: Sequence[Path], held: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shards = [
        {**shard, "file": f"{part.name}/{shard['file']}"}
        for part, said in zip(parts, held, strict=True)
        for shard in said["splits"][split]["shards"]
    ]
    return {
        "planned": sum(said["splits"][split]["planned"] for said in held),
        "rows": sum(said["splits"][split]["rows"] for said in held),
        "shards": shards,
    }


def _members(
    folder: Path, parts: Sequence[Path], held: Sequence[Mapping[str, Any]], failures: Iterable[str]
) -> dict[str, list[Member]]:
    """Return id and label of all clips by split."""
    members: dict[str, list[Member]] = {split: [] for split in SPLITS}
    ids = set(failures)
    whole = _Groups()
    accepted: dict[str, set[str]] = {}  # of groups that one part has in several splits
    for part, said in zip(parts, held, strict=True):
        here = _Groups()
        for split, name, label, group in _rows(part, said):
            if name in ids:
                raise SetupError(f"{part}: expected ids of its own, found {name!r} twice")
            ids.add(name)
            members[split].append((name, label))
            here.add(group, split)
            whole.add(group, split)
        for group, those in here.several.items():
            accepted.setdefault(group, set()).update(those)
    if bad := sorted(g for g, those in whole.several.items() if those != accepted.get(g)):
        raise SetupError(
            f"{folder}: expected every group in one split, found {len(bad)} that parts have in "
            f"different ones: {some(bad)}: fill in the split val too, the same for a whole group"
        )
    return members


class _Groups:
    """The splits of each group: of nearly all it is one."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.several: dict[str, set[str]] = {}

    def add(self, group: str, split: str) -> None:
        first = self.first.setdefault(group, split)
        if first != split:
            self.several.setdefault(group, {first}).add(split)


def _rows(part: Path, said: Mapping[str, Any]) -> Iterator[tuple[str, str, int, str]]:
    """Yield split, id, label and group of the clips of a part.

    Raises:
        SetupError: a shard is missing or damaged, or they are not those of the part.
    """
    pa: Any = import_module("pyarrow")  # untyped
    pq: Any = import_module("pyarrow.parquet")
    members: dict[str, list[Member]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for shard in said["splits"][split]["shards"]:
            path = part / shard["file"]
            try:
                table = pq.read_table(path, columns=["id", "label", "group"], partitioning=None)
            except (pa.ArrowException, OSError) as error:
                raise SetupError(f"{path} is missing or damaged: {AGAIN}") from error
            ids, labels = table["id"].to_pylist(), table["label"].to_pylist()
            members[split] += zip(ids, labels, strict=True)
            for row in zip(ids, labels, table["group"].to_pylist(), strict=True):
                yield split, *row
    if fingerprint(said["name"], said["classes"], members) != said["fingerprint"]:
        raise SetupError(f"{part}: {DATASET} and the shards are of different data sets: {AGAIN}")


def _texts(held: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the texts of all parts by their keys; those that differ, one after the other."""
    found: dict[str, dict[str, None]] = {}
    for said in held:
        for key, value in said.items():
            found.setdefault(key, {})[value] = None
    return {key: some(list(values)) for key, values in found.items()}
