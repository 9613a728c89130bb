"""Columns under the names that people give them: understood, or refused by name."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from equimodal import SetupError
from equimodal.data.layouts import Frames, Manifest
from support.trees import tree, write

ROWS = [(f"{i:02d}.mp4", "ab"[i % 2], "test" if i % 5 == 4 else "train") for i in range(20)]


@pytest.fixture
def folder(tmp_path):
    return tree(tmp_path / "data", [path for path, _, _ in ROWS])


def listed(folder, head, *more, delimiter=",", name="m.csv", **options):
    rows = [delimiter.join([*row, *more]) for row in ROWS]
    return Manifest(write(folder / name, head, *rows), **options).listing()


@pytest.mark.parametrize(
    ("head", "values", "span"),
    [
        ("start,end", ("1", "2.5"), (1.0, 2.5)),
        ("start_time,end_time", ("1", "2.5"), (1.0, 2.5)),
        ("time_start,time_end", ("1", "2.5"), (1.0, 2.5)),
        ("offset,duration", ("1", "2.5"), (1.0, 3.5)),
        ("start,duration", ("0.5", "2"), (0.5, 2.5)),
        ("Onset,Dur", ("1", "1"), (1.0, 2.0)),
        ("START_SEC,Stop", ("1", "2"), (1.0, 2.0)),
        ("Start Time,End Time", ("1", "2"), (1.0, 2.0)),
    ],
)
def test_a_span_under_other_names(folder, head, values, span):
    listing = listed(folder, f"path,label,split,{head}", *values)
    assert listing.clips[0].pieces["visual"] == Frames("00.mp4", *span)
    assert listing.clips[0].columns == {}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["path,label,split", "Path,Label,SPLIT", "filename,class,Subset"])
def test_headers_in_other_case_names_and_delimiters(folder, head, delimiter):
    listing = listed(folder, head.replace(",", delimiter), delimiter=delimiter)
    assert len(listing.clips) == 20
    name = "m.tsv" if delimiter == "\t" else "m.csv"
    assert len(listed(folder, head.replace(",", delimiter), delimiter=delimiter, name=name).clips)


@pytest.mark.parametrize("spelt", [str.upper, str.title, str.lower])
def test_splits_in_other_case(folder, spelt):
    rows = [f"{path},{label},{spelt(split)}" for path, label, split in ROWS]
    rows[0] = rows[0].rpartition(",")[0] + "," + spelt("dev")
    rows[1] = rows[1].rpartition(",")[0] + "," + spelt("validation")
    listing = Manifest(write(folder / "m.csv", "path,label,split", *rows)).listing()
    assert {clip.split for clip in listing.clips} == {"train", "val", "test"}
    assert listing.clips[0].split == listing.clips[1].split == "val"


@pytest.mark.parametrize("name", ["speaker", "Speaker_ID", "video", "session", "youtube_id"])
def test_a_column_that_says_what_belongs_together_is_the_group(folder, name):
    rows = [f"{path},{label},{split},g{i // 4}" for i, (path, label, split) in enumerate(ROWS)]
    listing = Manifest(write(folder / "m.csv", f"path,label,split,{name}", *rows)).listing()
    assert listing.clips[5].group == "g1"
    assert listing.clips[5].columns == {name: "g1"}
    train = {clip.group for clip in listing.clips if clip.split == "train"}
    val = {clip.group for clip in listing.clips if clip.split == "val"}
    assert not train & val


def test_of_several_such_columns_one_has_to_be_named(folder):
    head = "path,label,split,speaker,video"
    with pytest.raises(SetupError, match=r"found speaker, video: name one with groups"):
        listed(folder, head, "s1", "v1")
    rows = [f"{path},{label},{split},s{i},v" for i, (path, label, split) in enumerate(ROWS)]
    path = write(folder / "m.csv", head, *rows)
    assert Manifest(path, groups="speaker").listing().clips[3].group == "s3"
    with pytest.raises(SetupError, match="groups: unknown column 'speakr': did you mean 'speaker'"):
        Manifest(path, groups="speakr").listing()
    with pytest.raises(SetupError, match="expected a column group or groups=speaker, found both"):
        listed(folder, "path,label,split,group,speaker", "g", "s", groups="speaker")


@pytest.mark.parametrize(
    ("head", "values", "said"),
    [
        ("start_frame,end_frame", ("25", "50"), "start_frame is not in seconds: expected start"),
        ("start_ms", ("25",), "start_ms is not in seconds"),
        ("start,start_time", ("1", "1"), "expected one column for start, found"),
        ("onset,offset", ("1", "2"), "expected one column for start, found onset, offset"),
        ("start,end,duration", ("1", "2", "1"), "expected end or duration, found both"),
        ("strat", ("1",), "unknown column 'strat': did you mean 'start'"),
        ("visual", ("1",), "the column visual has a name that is taken"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(folder, head, values, said):
    with pytest.raises(SetupError, match=said):
        listed(folder, f"path,label,split,{head}", *values)


@pytest.mark.parametrize("kind", ["csv", "int", "float", "padded"])
def test_integer_labels_are_numbered_as_numbers(folder, kind):
    numbers = [i % 10 + 5 for i in range(20)]
    tree(folder, [f"more{i}.mp4" for i in range(20)])
    paths = [path for path, _, _ in ROWS] + [f"more{i}.mp4" for i in range(20)]
    splits = [split for _, _, split in ROWS] * 2
    labels = numbers * 2
    if kind in ("int", "float"):
        column = labels if kind == "int" else [float(each) for each in labels]
        table = pa.table({"path": paths, "label": column, "split": splits})
        source = folder / "m.parquet"
        pq.write_table(table, source)
    else:
        form = "{:03d}" if kind == "padded" else "{}"
        rows = [f"{p},{form.format(n)},{s}" for p, n, s in zip(paths, labels, splits, strict=True)]
        source = write(folder / "m.csv", "path,label,split", *rows)
    classes = Manifest(source).listing().classes
    assert [int(name) for name in classes] == list(range(5, 15))


@pytest.mark.parametrize(("one", "other"), [("Dog", "dog"), ("STRASSE", "straße"), ("é", "É")])
def test_classes_that_differ_by_case_only_are_refused(folder, one, other):
    rows = [f"{path},{[one, other][i % 2]},{s}" for i, (path, _, s) in enumerate(ROWS)]
    path = write(folder / "m.csv", "path,label,split", *rows)
    with pytest.raises(SetupError, match="label: expected classes that differ by more than case"):
        Manifest(path).listing()
    classes = write(folder / "classes.txt", one, other)
    assert Manifest(path, classes=classes).listing().classes == (one, other)
