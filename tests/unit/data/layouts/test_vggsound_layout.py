"""VGGSound: the published list, with commas in labels, and videos anywhere."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import Clip, Failure, Frames, Sound, VGGSound
from support.trees import by_split, clip, groups, tree, write

LABELS = ["race car, auto racing", "playing harp", "people eating apple"]
ROWS = [
    (f"{'-_ab'[i % 4]}{i:010d}", 30 * (i % 5), LABELS[i % 3], "test" if i % 6 > 3 else "train")
    for i in range(60)
]


def line(row):
    label = f'"{row[2]}"' if "," in row[2] else row[2]
    return f"{row[0]},{row[1]},{label},{row[3]}"


def stem(row):
    return f"{row[0]}_{row[1]:06d}"


@pytest.fixture
def source(tmp_path):
    source = tree(tmp_path / "vgg", [f"{row[3]}/{stem(row)}.mp4" for row in ROWS])
    write(source / "vggsound.csv", *map(line, ROWS))
    return source


def test_clips_labels_and_splits_are_those_of_the_list(source):
    listing = VGGSound(source).listing()
    assert listing.classes == tuple(sorted(LABELS))
    splits = by_split(listing)
    assert splits["test"] == sorted(stem(row) for row in ROWS if row[3] == "test")
    assert sorted(splits["train"] + splits["val"]) == sorted(
        stem(row) for row in ROWS if row[3] == "train"
    )
    assert len(splits["val"]) == 4
    assert {c.label for c in listing.clips if c.split == "val"} == set(LABELS)
    assert not groups(listing, "train") & groups(listing, "val")
    path = "train/a0000000002_000060.mp4"
    found = clip(listing, "a0000000002_000060")
    pieces = {"audio": Sound(path), "visual": Frames(path)}
    assert found == Clip(found.id, "people eating apple", found.split, pieces, "a0000000002")
    assert listing.protocol == (
        "train and test as listed; val: 0.1 of the training clips, whole source videos, by a hash "
        "of their names"
    )


def test_videos_that_are_not_there_change_neither_classes_nor_splits(source):
    whole = {c.id: c.split for c in VGGSound(source).listing().clips}
    gone = [row for row in ROWS if row[2] == "playing harp"]
    for row in gone:
        (source / row[3] / f"{stem(row)}.mp4").unlink()
    tree(source, ["train/other_000001.mp4"])
    listing = VGGSound(source).listing()
    assert listing.classes == tuple(sorted(LABELS))
    assert listing.protocol.endswith("; classes without a training clip (1): playing harp")
    assert listing.failures == tuple(
        Failure(name, f"{name}.mp4", whole[name], "no such file")
        for name in sorted(map(stem, gone))
    )
    assert {c.id: c.split for c in listing.clips}.items() <= whole.items()
    assert listing.about["unlisted"] == "files that belong to no clip (1): train/other_000001.mp4"


def test_the_list_may_lie_elsewhere(source, tmp_path):
    moved = (source / "vggsound.csv").rename(tmp_path / "list.csv")
    assert len(VGGSound(source, csv=moved).listing().clips) == 60
    with pytest.raises(
        SetupError,
        match=r"vggsound.csv: no such file: expected the published list.*name it with csv",
    ):
        VGGSound(source).listing()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,1,playing harp,tain", "unknown split 'tain': did you mean 'train'"),
        ("x,y,playing harp,train", "start: expected seconds from 0 up, found 'y'"),
        ("x,1,race car, auto racing,train", "expected 4 fields .* found 5"),
        ("x,1,,train", "label: expected a value, found none"),
        (
            line(ROWS[0]),
            f"expected an id of its own, found {stem(ROWS[0])}, which is at .*line 1 too",
        ),
    ],
)
def test_a_line_that_does_not_fit_is_refused(source, row, said):
    write(source / "vggsound.csv", *map(line, ROWS), row)
    with pytest.raises(SetupError, match=f"vggsound.csv, line 61: {said}"):
        VGGSound(source).listing()


def test_training_clips_of_videos_of_test_are_left_out_where_asked(source):
    again = [(row[0], 200, row[2], "train") for row in ROWS if row[3] == "test"][:5]
    tree(source, [f"more/{stem(row)}.mp4" for row in again])
    write(source / "vggsound.csv", *map(line, [*ROWS, *again]))
    listed = VGGSound(source).listing()
    apart = VGGSound(source, protocol="videos").listing()
    assert groups(listed, "test") & (groups(listed, "train") | groups(listed, "val"))
    assert not groups(apart, "test") & (groups(apart, "train") | groups(apart, "val"))
    assert by_split(apart)["test"] == by_split(listed)["test"]
    assert len(listed.clips) - len(apart.clips) == 5
    assert "but for 5 clips of videos of test" in apart.protocol
    with pytest.raises(SetupError, match="unknown protocol 'video': did you mean 'videos'"):
        VGGSound(source, protocol="video").listing()
