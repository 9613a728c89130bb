"""What is prepared, settled before anything is decoded: which clip goes into which shard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import (
    Clip,
    Failure,
    Flow,
    Frames,
    Listing,
    Picture,
    Piece,
    Sound,
    Stills,
    Text,
    paths_of,
)
from equimodal.data.preparing.recipe import Recipe
from equimodal.errors import SetupError

FORMAT = 1
SPLITS = ("train", "val", "test")
KINDS: dict[type[Piece], str] = {
    Sound: "sound",
    Frames: "frames",
    Picture: "picture",
    Stills: "stills",
    Flow: "flow",
    Text: "text",
}


STORED = {"stills": "frames"}  # pieces that are stored as others are


@dataclass(frozen=True)
class Stamp:
    """By what a file of the source is known to be the same; `ABSENT` for one that is not there.

    Args:
        size: in bytes.
        modified: nanoseconds since 1970.
    """

    size: int
    modified: int


ABSENT = Stamp(-1, 0)


@dataclass(frozen=True)
class Shard:
    """The clips that one Parquet file shall hold.

    Args:
        name: such as "train-00000-of-00003".
        clips: in the order of rows.
        stamps: of their files, by path.
    """

    name: str
    clips: tuple[Clip, ...]
    stamps: Mapping[str, Stamp]

    @property
    def split(self) -> str:
        """The split that all of its clips are in."""
        return self.name.split("-", 1)[0]


@dataclass(frozen=True)
class Plan:
    """What is prepared, and how.

    Args:
        listing: the clips.
        recipe: how they are decoded.
        view: how samples look, unless said otherwise.
        shard_size: clips in a shard, at most.
        stamps: of all files that clips are in, by path.
    """

    listing: Listing
    recipe: Recipe
    view: View
    shard_size: int
    stamps: Mapping[str, Stamp]

    def shards(self) -> list[Shard]:
        """Cut every split into shards of nearly one size, whoever will make them."""
        found = []
        for split in SPLITS:
            clips = [clip for clip in self.listing.clips if clip.split == split]
            number = math.ceil(len(clips) / self.shard_size)
            for place in range(number):
                part = tuple(
                    clips[len(clips) * place // number : len(clips) * (place + 1) // number]
                )
                stamps = {path: self.stamps[path] for path in paths(part)}
                found.append(Shard(f"{split}-{place:05d}-of-{number:05d}", part, stamps))
        return found

    def planned(self, split: str) -> int:
        """Return how many clips the split would have if none failed."""
        members: tuple[Clip | Failure, ...] = (*self.listing.clips, *self.listing.failures)
        return sum(each.split == split for each in members)

    def content(self) -> dict[str, Any]:
        """Return what JSON can hold: equal for equal plans. The source folder may move."""
        listing = self.listing
        return {
            "format": FORMAT,
            "name": listing.name,
            "protocol": listing.protocol,
            "classes": list(listing.classes),
            "modalities": kinds(listing),
            "recipe": _recipe(self.recipe),
            "view": _view(self.view),
            "shard_size": self.shard_size,
            "about": dict(listing.about),
            "clips": [_spelt(clip) for clip in listing.clips],
            "failures": [asdict(failure) for failure in listing.failures],
            "files": {path: [s.size, s.modified] for path, s in self.stamps.items()},
        }


def planned(listing: Listing, recipe: Recipe, view: View, shard_size: int) -> Plan:
    """Return the plan for a listing that `refuse_misfits` has passed.

    Raises:
        SetupError: a file is not there, or the shards would be empty.
    """
    if shard_size < 1:
        raise SetupError(f"shard_size: expected 1 or more, found {shard_size}")
    stamps = {path: stamped(listing.root / path) for path in paths(listing.clips)}
    absent = [path for path, stamp in stamps.items() if stamp == ABSENT]
    if absent and not recipe.keep_partial:
        raise SetupError(f"{listing.root}: {absent[0]} is listed, but no such file is there")
    return Plan(listing, recipe, view, shard_size, stamps)


def stamped(path: Path) -> Stamp:
    """Return by what a file is known to be the same."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ABSENT
    return Stamp(status.st_size, status.st_mtime_ns)


def paths(clips: Iterable[Clip]) -> list[str]:
    """Return the files that clips are in, each once, in order."""
    pieces = (piece for clip in clips for piece in clip.pieces.values())
    return list(dict.fromkeys(path for piece in pieces for path in paths_of(piece)))


def kinds(listing: Listing) -> dict[str, str]:
    """Return for each modality what is stored of it, such as "sound"."""
    found = {name: KINDS[type(piece)] for name, piece in listing.clips[0].pieces.items()}
    return {name: STORED.get(kind, kind) for name, kind in found.items()}


def text(content: Mapping[str, Any]) -> str:
    """Spell JSON with a line for each clip, failure and file, so that two plans can be compared."""
    return "{\n" + ",\n".join(f"{_json(k)}: {_lines(v)}" for k, v in content.items()) + "\n}\n"


def _lines(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(f"\n {_json(each)}" for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"\n {_json(k)}: {_json(v)}" for k, v in value.items()) + "}"
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": "))


def _recipe(recipe: Recipe) -> dict[str, Any]:
    told = {**asdict(recipe), "fps": float(recipe.fps)}  # 25 is spelt 25.0
    if not recipe.keep_partial:
        del told["keep_partial"]  # so that folders from before the option are gone on with
    return told


def _view(view: View) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(asdict(view)))  # tuples become lists
    if view.words == View.words:
        del told["words"]  # as of a recipe
    return told


def _spelt(clip: Clip) -> dict[str, Any]:
    return {
        "id": clip.id,
        "label": clip.label,
        "split": clip.split,
        "group": clip.group,
        "pieces": {n: {"kind": KINDS[type(p)], **asdict(p)} for n, p in clip.pieces.items()},
        "columns": dict(clip.columns),
    }
