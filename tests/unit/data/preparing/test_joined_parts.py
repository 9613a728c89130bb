"""Parts of a data set, each prepared into a folder of its own, joined without a copy."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

import equimodal as eq
from equimodal import data
from equimodal.cli import main
from equimodal.data.preparing import join, verify
from support.prepared import Made, clips
from support.prepared import prepared as by_hand
from support.raw_clips import make_source, split_of

SIZES = {"train": 10, "val": 3, "test": 4}


def part(prefix: str) -> dict[str, list[Made]]:
    return {split: clips(size, f"{prefix}-{split}", seed=size) for split, size in SIZES.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        by_hand(tmp_path / "all" / f"part {name}", part(name))
    return tmp_path / "all"


def changed(folder: Path, **values: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_whole_is_what_one_folder_of_all_clips_is(folder: Path, tmp_path: Path) -> None:
    a, b = part("a"), part("b")
    whole = data.load(by_hand(tmp_path / "whole", {split: a[split] + b[split] for split in a}))
    summary = join(folder)
    joined = data.load(folder)
    assert summary.fingerprint == joined.fingerprint == whole.fingerprint == verify(folder)
    assert summary.rows == {"train": 20, "val": 6, "test": 8}
    assert joined.train.ids == whole.train.ids
    assert joined.train.target.equal(whole.train.target)
    for place in (0, 9, 10, 19):
        assert joined.train[place][0].equal(whole.train[place][0])
    assert len(list(data.stream(folder))) == 20
    before = (folder / "dataset.json").read_bytes()
    join(folder)
    assert (folder / "dataset.json").read_bytes() == before
    hub = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in hub.items()} == summary.rows


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"recipe": {"fps": 1.0, "side": 20, "quality": 95, "rate": 8000}}, "fps 5.0, now 1.0"),
        ({"name": "other"}, "name: tiny, now other"),
        ({"classes": ["calm", "glad", "cross"]}, "classes: gone (1): sad; new (1): cross"),
    ],
)
def test_parts_that_were_prepared_otherwise_are_refused(
    folder: Path, values: dict[str, Any], said: str
) -> None:
    changed(folder / "part b", **values)
    with pytest.raises(eq.SetupError) as refused:
        join(folder)
    assert "found part b other than part a: " in str(refused.value)
    assert said in str(refused.value)
    assert not (folder / "dataset.json").exists()


def test_an_id_in_two_parts_and_a_group_in_two_splits_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    by_hand(folder / "part c", part("a"))
    with pytest.raises(eq.SetupError, match="part c: expected ids of its own, found 'a-train000'"):
        join(folder)
    spread = part("c")
    spread["train"][0].group = spread["test"][0].group = "in one part: its protocol says so"
    spread["val"][0].group = part("a")["train"][0].group
    by_hand(folder / "part c", spread)
    with pytest.raises(
        eq.SetupError, match="found 1 that parts have in different ones: a-trainspeaker0: fill in"
    ):
        join(folder)


def test_what_is_no_folder_of_finished_parts_is_refused(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    with pytest.raises(eq.SetupError, match=r"README.md would be written over: move it"):
        join(folder)
    (folder / "README.md").unlink()
    with pytest.raises(eq.SetupError, match="two prepared folders or more in it, found none"):
        join(folder / "part a")
    (folder / "part b" / "plan.json").touch()
    (folder / "part b" / "dataset.json").unlink()
    with pytest.raises(eq.SetupError, match=r"part b: no prepared data set: .* written last"):
        join(folder)
    with pytest.raises(eq.SetupError, match="part b was prepared itself"):
        join(folder / "part b")
    with pytest.raises(eq.SetupError, match="expected a folder that holds the parts, found none"):
        join(folder / "nowhere")


def test_parts_of_a_manifest_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_source(tmp_path / "raw", 20)
    (source / "c003.mpg").write_bytes(b"")
    for name, places in (("1", range(10)), ("2", range(10, 20))):
        with (source / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "audio", "label", "split"])
            for place in places:
                sound = f"c{place:03d}.wav"
                writer.writerow(
                    [f"c{place:03d}.mpg", sound, "ab"[place % 10 // 5], split_of(place)]
                )
        out = f"--out={tmp_path / 'all' / name}"
        given = ["prepare", "manifest", f"--source={source / f'{name}.csv'}", out, "--workers=1"]
        assert main([*given, "--allow-missing=0.1"]) == 0
    capsys.readouterr()
    assert main(["prepare", "--join", str(tmp_path / "all")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(": train 11, val 4, test 4; audio, visual; 2 classes")
    assert said[2:] == [
        f"1 left out: 1 empty file; see {tmp_path}/all/failures.csv",
        "",
        f"Next: equimodal train manifest --data {tmp_path}/all",
    ]
    told = json.loads((tmp_path / "all" / "dataset.json").read_text())
    assert told["about"]["source"] == "1.csv, 2.csv"
    assert told["protocol"].startswith("2 parts: splits as listed in 1.csv; val: as listed, splits")
    assert main(["prepare", f"--verify={tmp_path / 'all'}"]) == 0
