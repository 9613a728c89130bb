"""Folders that an earlier version has joined, of parts that lie below them, are read as ever."""

from __future__ import annotations

import json
from pathlib import Path

from equimodal import data
from equimodal.data.preparing import verify
from support.prepared import Made, clips
from support.prepared import prepared as by_hand

SIZES = {"train": 10, "val": 3, "test": 4}


def part(prefix: str) -> dict[str, list[Made]]:
    return {split: clips(size, f"{prefix}-{split}", seed=size) for split, size in SIZES.items()}


def test_a_joined_folder_is_what_one_folder_of_all_clips_is(tmp_path: Path) -> None:
    a, b, joined = part("a"), part("b"), tmp_path / "all"
    whole = by_hand(tmp_path / "whole", {split: a[split] + b[split] for split in a})
    held = [
        json.loads((by_hand(joined / name, clips) / "dataset.json").read_text())
        for name, clips in (("part a", a), ("part b", b))
    ]
    splits = {
        split: {
            "planned": 2 * size,
            "rows": 2 * size,
            "shards": [
                {**shard, "file": f"{name}/{shard['file']}"}
                for name, said in zip(("part a", "part b"), held, strict=True)
                for shard in said["splits"][split]["shards"]
            ],
        }
        for split, size in SIZES.items()
    }
    told = {**json.loads((whole / "dataset.json").read_text()), "splits": splits}
    (joined / "dataset.json").write_text(json.dumps(told))
    one, other = data.load(joined), data.load(whole)
    assert one.fingerprint == other.fingerprint == verify(joined)
    assert one.train.ids == other.train.ids
    for place in (0, 9, 10, 19):
        assert one.train[place][0].equal(other.train[place][0])
    assert len(list(data.stream(joined))) == 20
