"""Folders of empty files, for what looks at names alone."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

from equimodal.data.layouts import Clip, Listing

RAW = Path(os.environ.get("EQUIMODAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "raw"


def tree(root: Path, names: Iterable[str], seed: int = 0) -> Path:
    """Make empty files, in an order that the seed shuffles."""
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    for name in shuffled:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write(path: Path, *lines: str) -> Path:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def by_split(listing: Listing) -> dict[str, list[str]]:
    """Ids of the clips in each split."""
    return {
        split: [clip.id for clip in listing.clips if clip.split == split]
        for split in ("train", "val", "test")
    }


def groups(listing: Listing, split: str) -> set[str]:
    return {clip.group for clip in listing.clips if clip.split == split}


def clip(listing: Listing, name: str) -> Clip:
    (found,) = (each for each in listing.clips if each.id == name)
    return found
