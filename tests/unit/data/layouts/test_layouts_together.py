"""What holds for every layout: the same listing for the same names, and options that are said."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import equimodal
from equimodal.cli.text import described
from equimodal.data.layouts import (
    AVE,
    AVMNIST,
    GRID,
    LAYOUTS,
    MELD,
    UCF101,
    CremaD,
    Food101,
    KineticsSounds,
    Layout,
    Manifest,
    Twitter15,
    Twitter17,
    VGGSound,
)
from equimodal.data.layouts.clip import paths_of
from equimodal.data.layouts.grid_words import spoken
from equimodal.data.preparing.card import licence
from support.trees import tree, write


def crema_d(root: Path, seed: int) -> Layout:
    names = [f"10{a:02d}_DFA_{e}_XX" for a in range(12) for e in ("NEU", "SAD", "ANG", "DIS")]
    files = [f"AudioWAV/{n}.wav" for n in names] + [f"VideoFlash/{n}.flv" for n in names[1:]]
    return CremaD(tree(root, files, seed))


def kinetics(root: Path, seed: int) -> Layout:
    rows = [(f"id{i:09d}", "xy"[i % 2], "val" if i % 4 > 1 else "train") for i in range(40)]
    tree(root, [f"{of}/{name}_000000_000010.mp4" for name, of, _ in rows[1:]], seed)
    lines = [f"{label},{name},0,10,{split}" for name, label, split in rows]
    write(root / "all.csv", "label,youtube_id,time_start,time_end,split", *lines)
    return KineticsSounds(root, classes=str(write(root / "classes.txt", "x", "y")))


def vggsound(root: Path, seed: int) -> Layout:
    rows = [(f"id{i:09d}", "xy"[i % 2], "test" if i % 4 > 1 else "train") for i in range(40)]
    tree(root, [f"{of}/{name}_000001.mp4" for name, of, _ in rows[1:]], seed)
    write(root / "vggsound.csv", *(f"{name},1,{label},{split}" for name, label, split in rows))
    return VGGSound(root)


def ave(root: Path, seed: int) -> Layout:
    rows = [f"{'xy'[i % 2]}&id{i:09d}&good&0&{i % 10 + 1}" for i in range(40)]
    tree(root, [f"AVE/{row.split('&')[1]}.mp4" for row in rows[1:]], seed)
    write(root / "Annotations.txt", *rows)
    for i, name in enumerate(("train", "val", "test")):
        write(root / f"{name}Set.txt", *rows[i::3])
    return AVE(root)


def grid(root: Path, seed: int) -> Layout:
    names = [f"lb{p}{letter}{d}n" for p in "ab" for letter in "bcd" for d in "123"]
    tree(root, [f"s{t}/{name}.mpg" for t in (1, 2) for name in names], seed)
    for name in names[1:]:
        times = [f"{1000 * i} {1000 * i + 1000} {w}" for i, w in enumerate(spoken(name).values())]
        for talker in (1, 2):
            write(root / "align" / f"s{talker}" / f"{name}.align", *times)
    return GRID(root, slots=("letter", "digit"))


def av_mnist(root: Path, seed: int) -> Layout:
    names = [
        f"{d}_{s}_{i}.wav" for d in range(10) for s in ("ann", "bob", "theo") for i in range(2)
    ]
    tree(root, names, seed)
    for part in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, 40, 28, 28) + bytes(40 * 784)
        labels = struct.pack(">2I", 0x801, 40) + bytes(i % 10 for i in range(40))
        (root / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return AVMNIST(root, test_speakers=("theo",))


def manifest(root: Path, seed: int) -> Layout:
    rows = [
        f"{'xy'[i % 2]}/{i}.mp4,{'xy'[i % 2]},{'test' if i % 4 > 2 else 'train'}" for i in range(40)
    ]
    tree(root, [row.split(",")[0] for row in rows[1:]], seed)
    return Manifest(write(root / "m.csv", "path,label,split", *rows))


def meld(root: Path, seed: int) -> Layout:
    head = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime"
    for part, first in (("train", 1), ("dev", 0), ("test", 0)):
        tree(root, [f"{part}_splits/dia{i}_utt0.mp4" for i in range(first, 10)], seed)
        moods = [("joy", "positive"), ("anger", "negative")]
        lines = [f"x,Ross,{','.join(moods[i % 2])},{i},0,1,2,0,1" for i in range(10)]
        write(root / f"{part}_sent_emo.csv", f"{head},EndTime", *lines)
    return MELD(root)


def food_101(root: Path, seed: int) -> Layout:
    for split, first in (("train", 0), ("test", 20)):
        rows = [f"{'xy'[i % 2]}_{i}.jpg,no. {i} of {split},{'xy'[i % 2]}" for i in range(first, 40)]
        rows = rows[:20]
        missing = split == "train"
        tree(root / split, [f"{row[0]}/{row.split(',')[0]}" for row in rows[missing:]], seed)
        write(root / f"{split}_titles.csv", *rows)
    return Food101(root)


def ucf_101(root: Path, seed: int) -> Layout:
    write(root / "classInd.txt", "1 x", "2 y")
    for split, groups in (("train", range(8, 16)), ("test", range(1, 4))):
        names = [f"{label}/v_{label}_g{g:02d}_c01" for label in "xy" for g in groups]
        write(root / f"{split}list01.txt", *(f"{name}.avi 1" for name in names))
        for folder in ("jpegs_256", "tvl1_flow/u", "tvl1_flow/v"):
            there = [f"{folder}/{n.partition('/')[2]}/frame000001.jpg" for n in names]
            tree(root, there[split == "train" :], seed)
    return UCF101(root)


def twitter(kind: type[Layout], year: int) -> Callable[[Path, int], Layout]:
    def make(root: Path, seed: int) -> Layout:
        for part, first in (("train", 1), ("dev", 20), ("test", 30)):
            rows = [f"{i}\t{i % 3}\t{i}.jpg\t$T$ , hi\tyou" for i in range(first, first + 10)]
            write(root / f"twitter{year}/{part}.tsv", "index\t#1\t#2\t#3\t#3", *rows)
        places = [f"twitter{year}_images/{i}.jpg" for i in (*range(2, 11), *range(20, 40))]
        tree(root, places, seed)
        return kind(root)

    return make


PACKAGE = Path(equimodal.__file__).parents[1]

MAKERS: dict[str, Callable[[Path, int], Layout]] = {
    "crema-d": crema_d,
    "kinetics-sounds": kinetics,
    "vggsound": vggsound,
    "ave": ave,
    "grid": grid,
    "av-mnist": av_mnist,
    "manifest": manifest,
    "meld": meld,
    "food-101": food_101,
    "ucf-101": ucf_101,
    "twitter-15": twitter(Twitter15, 2015),
    "twitter-17": twitter(Twitter17, 2017),
}


def told(layout: Layout) -> str:
    """All of a listing but where it is."""
    listing = dataclasses.asdict(layout.listing())
    return json.dumps({key: value for key, value in listing.items() if key != "root"}, default=str)


def test_every_data_set_of_the_issue_has_a_layout():
    assert set(LAYOUTS) == set(MAKERS)
    assert all(layout.name == name for name, layout in LAYOUTS.items())


@pytest.mark.parametrize("name", MAKERS)
def test_the_listing_depends_on_names_alone(tmp_path, name, monkeypatch):
    first = told(MAKERS[name](tmp_path / "0" / "data", 0))
    scandir = os.scandir

    def backwards(path):
        return iter(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

    # Made in another order, and listed in another order.
    layout = MAKERS[name](tmp_path / "1" / "data", 1)
    monkeypatch.setattr(os, "scandir", backwards)
    second = told(layout)
    assert first.replace(f"{tmp_path}/0", "") == second.replace(f"{tmp_path}/1", "")


def test_another_process_with_other_hashes_lists_the_same(tmp_path):
    expected = [told(make(tmp_path / name, 0)) for name, make in MAKERS.items()]
    code = (
        "import sys, pathlib\n"
        "from unit.data.layouts.test_layouts_together import MAKERS, told\n"
        "for name, make in MAKERS.items(): print(told(make(pathlib.Path(sys.argv[1]) / name, 0)))"
    )
    tests = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"{tests}{os.pathsep}{PACKAGE}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == expected


@pytest.mark.parametrize("name", MAKERS)
def test_every_listing_keeps_the_contract(tmp_path, name):
    layout = MAKERS[name](tmp_path, 0)
    listing = layout.listing()
    ids = [clip.id for clip in listing.clips]
    assert ids == sorted(set(ids))
    assert listing.name == name
    assert len(listing.failures) == {"av-mnist": 0, "grid": 4}.get(name, 1)
    assert not {failure.id for failure in listing.failures} & set(ids)
    assert all(failure.split in ("train", "val", "test") for failure in listing.failures)
    assert {clip.split for clip in listing.clips} == {"train", "val", "test"}
    assert {clip.label for clip in listing.clips} <= set(listing.classes)
    of = {split: {c.group for c in listing.clips if c.split == split} for split in ("train", "val")}
    assert not of["train"] & of["val"]
    assert len({tuple(clip.columns) for clip in listing.clips}) == 1
    for clip in listing.clips:
        assert tuple(clip.pieces) == listing.modalities
        for piece in clip.pieces.values():
            assert all((listing.root / path).exists() for path in paths_of(piece))
    assert {"title", "source", "authors", "licence", "citation"} <= set(listing.about)
    assert listing.protocol
    # The card of a prepared folder names a licence of the Hub only where it covers all of the data.
    assert licence(listing.about["licence"]) == {"crema-d": "odbl"}.get(name, "other")


@pytest.mark.parametrize("name", MAKERS)
def test_every_option_is_described_and_has_a_default(name):
    layout = LAYOUTS[name]
    text = layout.__doc__ or ""
    assert "Args:" in text
    for field in dataclasses.fields(layout):
        assert f"\n        {field.name}: " in text, field.name
        if field.name != "source":
            assert field.default is not dataclasses.MISSING
    assert len(text.splitlines()[0]) <= 90
    assert "`" not in text.splitlines()[0], "the command shows this line"
    assert described([(name, text.splitlines()[0])], indent=20)
