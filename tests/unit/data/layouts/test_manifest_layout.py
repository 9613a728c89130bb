"""A manifest: any clips, and every fault of it refused with its line."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from equimodal import SetupError
from equimodal.data.layouts import Clip, Failure, Frames, Manifest, Sound
from support.trees import by_split, clip, groups, tree, write

LONG = "日" * 80 + ".mp4"  # 244 bytes
HEAD = "path,label,split"
ROWS = [f"clips/{i:02d}.mp4,{'ab'[i % 2]},{'test' if i % 5 == 4 else 'train'}" for i in range(20)]


@pytest.fixture
def folder(tmp_path):
    return tree(tmp_path / "data", [row.split(",")[0] for row in ROWS])


def test_the_three_columns_are_enough(folder):
    listing = Manifest(write(folder / "m.csv", HEAD, *ROWS)).listing()
    assert listing.root == folder
    assert listing.classes == ("a", "b")
    splits = by_split(listing)
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 14, "val": 2, "test": 4}
    assert splits["test"] == [f"clips/{i:02d}.mp4" for i in (4, 9, 14, 19)]
    path = "clips/04.mp4"
    pieces = {"audio": Sound(path), "visual": Frames(path)}
    assert clip(listing, path) == Clip(path, "a", "test", pieces, path)
    assert listing.protocol == (
        "splits as listed in m.csv; val: 0.1 of the training clips, whole groups, by a hash of "
        "their names"
    )
    assert listing.about["source"] == "m.csv"


def test_all_columns_are_read_and_further_ones_kept(folder):
    tree(folder, ["sound/é.wav", LONG])
    head = "id,path,audio,label,split,start,end,group,take"
    rows = [
        f"x1,{LONG},sound/é.wav,a,train,0.5,2,tom,1",
        f"x2,{LONG},,b,train,,,tom,2",
        "x3,clips/01.mp4,,a,validation,1,,ann,",
        "x4,clips/02.mp4,,b,valid,,,,",
        ",clips/03.mp4,,a,test,0.25,1.5,,",
        ",clips/03.mp4,,a,test,2,,,",
    ]
    listing = Manifest(write(folder / "m.csv", head, *rows)).listing()
    assert [each.id for each in listing.clips] == [
        "clips/03.mp4@0.25-1.5", "clips/03.mp4@2-", "x1", "x2", "x3", "x4"
    ]  # fmt: skip
    assert clip(listing, "x1") == Clip(
        "x1",
        "a",
        "train",
        {"audio": Sound("sound/é.wav", 0.5, 2.0), "visual": Frames(LONG, 0.5, 2.0)},
        "tom",
        {"take": "1"},
    )
    assert clip(listing, "clips/03.mp4@2-").group == "clips/03.mp4"
    assert clip(listing, "x3").pieces["visual"] == Frames("clips/01.mp4", 1.0, None)
    assert by_split(listing)["val"] == ["x3", "x4"]
    assert listing.protocol == "splits as listed in m.csv; val: as listed"


def test_parquet_and_csv_give_the_same(folder):
    rows = [row.split(",") for row in ROWS]
    starts = [None if i % 3 else 0.5 for i in range(20)]
    lines = [f"{row},{'' if s is None else s}" for row, s in zip(ROWS, starts, strict=True)]
    csv = Manifest(write(folder / "m.csv", f"{HEAD},start", *lines)).listing()
    columns = {name: [row[i] for row in rows] for i, name in enumerate(HEAD.split(","))}
    pq.write_table(pa.table({**columns, "start": starts}), folder / "m.parquet")
    assert Manifest(folder / "m.parquet").listing().clips == csv.clips


def test_the_order_of_rows_does_not_matter(folder):
    ordered = Manifest(write(folder / "m.csv", HEAD, *ROWS)).listing()
    assert Manifest(write(folder / "m.csv", HEAD, *ROWS[::-1])).listing() == ordered


def test_groups_are_held_out_whole(folder):
    rows = [f"{row},{'abcdefg'[i % 7]}" for i, row in enumerate(ROWS)]
    path = write(folder / "m.csv", f"{HEAD},group", *rows)
    listing = Manifest(path, validation=0.3).listing()
    assert groups(listing, "val")
    assert not groups(listing, "train") & groups(listing, "val")


def test_groups_in_train_and_val_are_refused_and_others_in_two_splits_said(folder):
    rows = [*(f"{row},{i}" for i, row in enumerate(ROWS)), "clips/03.mp4,a,val,3"]
    path = write(
        folder / "m.csv", f"{HEAD},group,id", *(f"{row},{i}" for i, row in enumerate(rows))
    )
    with pytest.raises(
        SetupError, match="group: expected no group in train and val, found 1, such as '3'"
    ):
        Manifest(path).listing()
    rows = [*(f"{row}," for row in ROWS), "clips/03.mp4,a,test,5"]
    listing = Manifest(write(path, f"{HEAD},start", *rows)).listing()
    assert listing.protocol.endswith("; groups with clips in two splits (1): clips/03.mp4")


def test_files_that_are_not_there_are_failures(folder):
    rows = [*ROWS, "clips/99.mp4,a,train", f"{'x' * 3000}.mp4,b,test", "clips,b,test"]
    listing = Manifest(write(folder / "m.csv", HEAD, *rows)).listing()
    assert [(f.path[:12], f.reason) for f in listing.failures] == [
        ("clips", "no such file"),
        ("clips/99.mp4", "no such file"),
        ("x" * 12, "no such file"),
    ]
    rows = [f"{row},clips/00.mp4" for row in ROWS[:-1]] + [f"{ROWS[-1]},none.wav"]
    listing = Manifest(write(folder / "m.csv", f"{HEAD},audio", *rows)).listing()
    assert listing.failures == (Failure("clips/19.mp4", "none.wav", "test", "no such file"),)


def test_paths_may_be_relative_to_another_folder(folder, tmp_path):
    manifest = write(tmp_path / "lists" / "m.csv", HEAD, *ROWS)
    assert Manifest(manifest, root=folder).listing().root == folder
    with pytest.raises(
        SetupError, match=r"clips of the train split, but all \d+ are left out \(no such file\)"
    ):
        Manifest(manifest).listing()


def test_classes_may_be_given_in_their_order(folder):
    manifest = write(folder / "m.csv", HEAD, *ROWS)
    classes = write(folder / "classes.txt", "c", "b", "a")
    listing = Manifest(manifest, classes=classes).listing()
    assert listing.classes == ("c", "b", "a")
    assert listing.protocol.endswith("; classes without a training clip (1): c")
    write(classes, "sit", "b")
    with pytest.raises(SetupError, match=r"m.csv, line 2: unknown class 'a'"):
        Manifest(manifest, classes=classes).listing()


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        (HEAD, "clips/00.mp4,a,train", "m.csv, line 22: expected an id of its own, found clips/00.mp4, which is at .*m.csv, line 2 too"),
        (HEAD, "clips/00.mp4,a,tain", "m.csv, line 22: unknown split 'tain': did you mean 'train'"),
        (HEAD, "clips/00.mp4,a,", "m.csv, line 22: split: expected a value, found none"),
        (HEAD, "clips/00.mp4,,train", "m.csv, line 22: label: expected a value, found none"),
        (HEAD, "clips/00.mp4,a", r"m.csv, line 22: expected 3 fields \(path, label, split\), found 2"),
        (HEAD, "../data/clips/00.mp4,a,test", "m.csv, line 22: expected a path below"),
        (HEAD, "/etc/passwd,a,test", "m.csv, line 22: expected a path below .* found '/etc/passwd'"),
        (HEAD, "link/out.mp4,a,test", "m.csv, line 22: link/out.mp4 is a link out of the source"),
        (HEAD.replace("label", "kind"), "", "m.csv: expected the columns path, label, split, found path, kind, split: label missing"),
    ],
)  # fmt: skip
def test_faults_are_refused_with_their_line(folder, tmp_path, head, row, said):
    tree(tmp_path, ["other/out.mp4"])
    (folder / "link").symlink_to(tmp_path / "other")
    path = write(folder / "m.csv", head, *ROWS, row)
    with pytest.raises(SetupError, match=said):
        Manifest(path).listing()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("start", "-1", "line 2: start: expected seconds from 0 up, found '-1'"),
        ("end", "0", "line 2: expected an end after 0.0 s, found 0.0 s"),
        ("audio", "../a.wav", "line 2: expected a path below"),
        ("groups", "tom", "unknown column 'groups': did you mean 'group'"),
        ("strat", "1", "unknown column 'strat': did you mean 'start'"),
        ("visual", "1", "the column visual has a name that is taken"),
    ],
)
def test_optional_columns_that_do_not_fit_are_refused(folder, column, value, said):
    path = write(folder / "m.csv", f"{HEAD},{column}", *(f"{row},{value}" for row in ROWS))
    with pytest.raises(SetupError, match=f"m.csv.*: {said}|m.csv, {said}"):
        Manifest(path).listing()


def test_what_is_no_manifest_is_refused(folder):
    for name, said in (("none.csv", "found no file"), ("clips", "found another file")):
        with pytest.raises(
            SetupError, match=f"{name}: expected a manifest, a .csv, .tsv or .parquet.*{said}"
        ):
            Manifest(folder / name).listing()
    with pytest.raises(SetupError, match=r"m.csv: expected rows, found none"):
        Manifest(write(folder / "m.csv", HEAD)).listing()
    with pytest.raises(
        SetupError, match=re.escape(f"{folder}: expected clips of the test split, found none")
    ):
        Manifest(write(folder / "m.csv", HEAD, *ROWS[:4])).listing()
