"""What a prepared folder says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from equimodal.data.batches.again import again
from equimodal.data.batches.view import View
from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

FORMAT = 1
FILE = "dataset.json"
AGAIN = "run the same `equimodal prepare ...` again"
KINDS = ("sound", "frames", "picture", "flow", "text")


class Shard(NamedTuple):
    """A Parquet file of a split.

    Attributes:
        file: its name, relative to the folder.
        rows: how many samples it holds.
        sha256: of its bytes, in hex digits.
    """

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Prepared:
    """What a prepared folder holds.

    Args:
        root: the folder, or the address that its files are below.
        name: of the data set.
        classes: names in order.
        modalities: for each its kind, of `KINDS`.
        rates: of sound, in Hz.
        seconds: of the longest sound of train, for each modality of sound.
        view: how samples look, unless said otherwise.
        splits: the shards of each.
        fingerprint: over which sample is in which split with which label.
        protocol: how the splits were made.
        about: source, licence and the like.
        changes: what was done to the source.
        partial: whether samples may lack modalities.
    """

    root: str
    name: str
    classes: tuple[str, ...]
    modalities: Mapping[str, str]
    rates: Mapping[str, int]
    seconds: Mapping[str, float]
    view: View
    splits: Mapping[str, tuple[Shard, ...]]
    fingerprint: str
    protocol: str
    about: Mapping[str, str]
    changes: str
    partial: bool = False

    def path(self, shard: Shard) -> str:
        """Return where a shard is."""
        return f"{self.root}/{shard.file}"

    def lengths(self, view: View) -> dict[str, int]:
        """Return how many samples the sound of a view has, for each modality of sound."""
        return {
            name: max(1, round((view.seconds or self.seconds[name]) * self.rates[name]))
            for name, kind in self.modalities.items()
            if kind == "sound"
        }

    def chosen(self, modalities: Sequence[str] | None) -> dict[str, str]:
        """Return the kinds of the modalities that are wanted, in this order; all for None.

        Raises:
            SetupError: one is unknown, none is named or one twice.
        """
        if isinstance(modalities, str):
            raise SetupError(
                f"modalities: expected several names, found one: use ('{modalities}',)"
            )
        names = list(self.modalities if modalities is None else modalities)
        for name in names:
            if name not in self.modalities:
                raise SetupError(f"{self.root}: " + unknown("modality", name, self.modalities))
        if not names or len(set(names)) < len(names):
            found = ", ".join(names) or "none"
            raise SetupError(f"modalities: expected at least one name, none twice, found {found}")
        return {name: self.modalities[name] for name in names}

    def seen(self, changes: Mapping[str, Any]) -> View:
        """Return the view with some of its settings changed.

        Raises:
            SetupError: a setting is unknown or out of its range.
        """
        for name in changes:
            if name not in (known := [field.name for field in fields(View)]):
                raise SetupError(unknown("option", name, known))
        return replace(self.view, **changes)


def prepared(root: str) -> Prepared:
    """Read what a prepared folder says of itself.

    Args:
        root: the folder, or an address that fsspec knows, such as ``s3://bucket/folder``.

    Raises:
        SetupError: there is none, or it is damaged.
        ImportError: fsspec is missing.
    """
    require("data", "fsspec")
    fsspec: Any = import_module("fsspec")  # untyped
    where = f"{root}/{FILE}"

    def read() -> bytes:
        with fsspec.open(where, "rb") as file:
            found: bytes = file.read()
            return found

    try:
        text = again(where, read)
    except (FileNotFoundError, NotADirectoryError):
        raise SetupError(
            f"{root}: no prepared data set: {FILE} is not there, which is written last. If "
            f"preparing was interrupted, {AGAIN}"
        ) from None
    try:
        return _parsed(root, json.loads(text))
    except SetupError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise SetupError(f"{where} is damaged: {what}: remove it and {AGAIN}") from error


def _changes(recipe: Mapping[str, Any]) -> str:
    return (
        f"sound mono, 16 bit, {recipe['rate']:,} Hz; {recipe['fps']:g} frames a second as JPEG of "
        f"quality {recipe['quality']}, shorter side {recipe['side']} pixels at most."
    )


def _parsed(root: str, said: dict[str, Any]) -> Prepared:
    if said["format"] != FORMAT:
        raise SetupError(
            f"{root}/{FILE}: expected format {FORMAT}, found {said['format']}: prepared by another "
            "version of equimodal; use that, or prepare the data set anew"
        )
    view = dict(said["view"])
    splits = {
        split: tuple(Shard(s["file"], s["rows"], s["sha256"]) for s in of["shards"])
        for split, of in said["splits"].items()
    }
    for split in ("train", "val", "test"):
        if not sum(shard.rows for shard in splits[split]):
            raise SetupError(f"{root}: expected samples in every split, found none in {split}")
    for shard in (shard for of_split in splits.values() for shard in of_split):
        parts = PurePosixPath(shard.file)
        if parts.is_absolute() or ".." in parts.parts:
            raise SetupError(f"{root}: expected shards in the folder, found {shard.file}")
    for kind in said["modalities"].values():
        if kind not in KINDS:
            raise ValueError(unknown("kind of modality", kind, KINDS))
    return Prepared(
        root=root,
        name=said["name"],
        classes=tuple(said["classes"]),
        modalities=dict(said["modalities"]),
        rates=dict(said["rates"]),
        seconds=dict(said["seconds"]),
        view=View(**{**view, "scale": tuple(view["scale"])}),
        splits=splits,
        fingerprint=said["fingerprint"],
        protocol=said["protocol"],
        about=dict(said["about"]),
        changes=_changes(said["recipe"]),
        partial=bool(said["recipe"].get("keep_partial")),
    )
