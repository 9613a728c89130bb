"""Kinetics-Sounds: a list of classes that is chosen, splits of the annotations, videos anywhere."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import Clip, Failure, Frames, KineticsSounds, Sound
from equimodal.data.layouts.class_lists import THIRTY_ONE, THIRTY_TWO, kinetics_sounds
from support.trees import by_split, clip, groups, tree, write

HEAD = "label,youtube_id,time_start,time_end,split"
TRAIN = [
    (label, f"-t{i:02d}{j:02d}_éx", 10 * j, "train")
    for i, label in enumerate(THIRTY_TWO)
    for j in range(4)
]
VAL = [(label, f"v{i:09d}x", 7, "validate") for i, label in enumerate(THIRTY_TWO)]
TEST = [(label, f"e{i:09d}x", 0, "test") for i, label in enumerate(THIRTY_TWO)]
OTHER = [("abseiling", "a0123456789", 1, "train"), ("zumba", "z0123456789", 1, "odd")]


def line(row):
    label, name, start, split = row
    return f'"{label}",{name},{start},{start + 10},{split}'


def stem(row):
    return f"{row[1]}_{row[2]:06d}_{row[2] + 10:06d}"


def source_of(root, rows, folder="train"):
    return tree(root, [f"{folder}/{row[0]}/{stem(row)}.mp4" for row in rows])


@pytest.fixture
def source(tmp_path):
    source = source_of(tmp_path / "k400", TRAIN)
    source_of(source, VAL, "val")
    write(source / "annotations" / "train.csv", HEAD, *map(line, TRAIN + OTHER))
    write(source / "annotations" / "validate.csv", HEAD, *map(line, VAL))
    write(source / "statistics.csv", "class,clips", "abseiling,1000")
    return source


def test_the_lists_are_those_of_the_papers():
    assert len(set(THIRTY_ONE)) == 31
    assert set(THIRTY_TWO) - set(THIRTY_ONE) == {"strumming guitar"}
    assert list(THIRTY_ONE) == sorted(THIRTY_ONE)
    # The places of two videos of OGM-GE's list, whose classes are known from elsewhere.
    assert (THIRTY_ONE[16], THIRTY_ONE[29]) == ("playing piano", "tapping pen")


def test_train_and_val_alone_are_train_and_test(source):
    listing = KineticsSounds(source, classes="31").listing()
    assert listing.classes == THIRTY_ONE
    splits = by_split(listing)
    kept = [row for row in VAL if row[0] != "strumming guitar"]
    assert splits["test"] == sorted(map(stem, kept))
    train = sorted(stem(row) for row in TRAIN if row[0] != "strumming guitar")
    assert sorted(splits["train"] + splits["val"]) == train
    assert len(splits["val"]) == round(0.1 * len(train))
    assert listing.protocol == (
        "31 classes (31); test: the clips annotated as val; val: 0.1 of the training clips, whole "
        "source videos, by a hash of their names"
    )
    name = "-t1602_éx_000020_000030"
    path = f"train/playing piano/{name}.mp4"
    found = clip(listing, name)
    pieces = {"audio": Sound(path), "visual": Frames(path)}
    assert found == Clip(name, "playing piano", found.split, pieces, "-t1602_éx")
    strumming = [stem(row) for row in TRAIN + VAL if row[0] == "strumming guitar"]
    assert listing.about["unlisted"].startswith(
        f"files that belong to no clip ({len(strumming)}): train/str"
    )
    assert listing.failures == ()


def test_a_list_without_labels_is_passed_over(source):
    """The test list of the first release of Kinetics had none."""
    plain = KineticsSounds(source, classes="31").listing()
    unlabelled = write(
        source / "annotations" / "test.csv",
        "youtube_id,time_start,time_end,split",
        *(line(row).partition(",")[2] for row in TEST),
    )
    listing = KineticsSounds(source, classes="31").listing()
    assert listing.clips == plain.clips
    assert listing.protocol == plain.protocol + "; lists without labels, not used: test.csv"
    with pytest.raises(SetupError, match="expected the columns label, youtube_id"):
        KineticsSounds(source, classes="31", annotations=unlabelled).listing()


def test_all_three_splits_are_taken_as_they_are(source):
    source_of(source, TEST, "test")
    write(source / "annotations" / "test.csv", HEAD, *map(line, TEST))
    listing = KineticsSounds(source, classes="32").listing()
    assert by_split(listing) == {
        "train": sorted(map(stem, TRAIN)),
        "val": sorted(map(stem, VAL)),
        "test": sorted(map(stem, TEST)),
    }
    assert listing.protocol == ("32 classes (32); train, val and test as annotated; val: as listed")


@pytest.mark.parametrize("flat", [True, False])
def test_videos_may_lie_in_one_folder_or_by_split(source, tmp_path, flat):
    other = tmp_path / "other"
    tree(other, [f"{'' if flat else row[3] + '/'}{stem(row)}.mp4" for row in TRAIN + VAL])
    annotations = source / "annotations"
    ours = KineticsSounds(other, classes="31", annotations=annotations).listing()
    theirs = KineticsSounds(source, classes="31").listing()
    assert [(c.id, c.label, c.split) for c in ours.clips] == [
        (c.id, c.label, c.split) for c in theirs.clips
    ]


def test_one_file_of_annotations_may_hold_all(source, tmp_path):
    path = write(tmp_path / "all.csv", HEAD, *map(line, TRAIN + VAL))
    listing = KineticsSounds(source, classes="31", annotations=path).listing()
    assert by_split(listing) == by_split(KineticsSounds(source, classes="31").listing())


def test_clips_of_one_video_stay_together(source):
    again = [(label, name, start + 50, split) for label, name, start, split in TRAIN]
    source_of(source, again)
    write(source / "annotations" / "more.csv", HEAD, *map(line, again))
    listing = KineticsSounds(source, classes="31", validation=0.3).listing()
    assert not groups(listing, "train") & groups(listing, "val")
    assert len(by_split(listing)["val"]) == round(0.3 * 2 * 31 * 4)


def test_videos_that_are_not_there_are_failures_and_change_no_split(source):
    whole = {c.id: c.split for c in KineticsSounds(source, classes="31").listing().clips}
    gone = {stem(row): row for row in [*TRAIN[::9], *VAL[::9]] if row[0] != "strumming guitar"}
    for name, row in gone.items():
        folder = "train" if row[3] == "train" else "val"
        (source / folder / row[0] / f"{name}.mp4").unlink()
    listing = KineticsSounds(source, classes="31").listing()
    assert listing.failures == tuple(
        Failure(name, f"{name}.mp4", whole[name], "no such file") for name in sorted(gone)
    )
    assert {c.id: c.split for c in listing.clips} == {
        name: split for name, split in whole.items() if name not in gone
    }


def test_a_list_of_classes_may_come_from_a_file(source, tmp_path):
    path = write(tmp_path / "mine.txt", "tickling", "", "playing piano")
    listing = KineticsSounds(source, classes=str(path)).listing()
    assert listing.classes == ("tickling", "playing piano")
    assert {each.label for each in listing.clips} == {"tickling", "playing piano"}


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (None, "has no one list of classes: choose 31 .* 32 .* or the path of a file"),
        ("33", "33: the papers with 33 classes do not say which they are: choose 31"),
        ("34", "34: the 34 names of Arandjelovic and Zisserman .* seven are not in it"),
        ("30", "unknown list of classes '30'. There are: 31, 32, or no such file"),
    ],
)
def test_there_is_no_silent_choice_of_classes(source, classes, said):
    with pytest.raises(SetupError, match=f"^classes: .*{said}"):
        KineticsSounds(source, classes=classes).listing()


def test_files_of_classes_that_do_not_fit_are_refused(source, tmp_path):
    path = write(tmp_path / "mine.txt", "tickling", "playing_piano")
    with pytest.raises(
        SetupError,
        match="classes: 1 of 2 are not in the annotations: playing_piano: unknown class 'playing_piano': did you mean 'playing piano'",
    ):
        KineticsSounds(source, classes=str(path)).listing()
    with pytest.raises(SetupError, match="line 3: expected every class once, found a as in line 1"):
        kinetics_sounds(str(write(tmp_path / "twice.txt", "a", "b", "a")))
    with pytest.raises(SetupError, match="expected two classes or more, one a line, found 1"):
        kinetics_sounds(str(write(tmp_path / "one.txt", "a")))


def test_faults_of_the_annotations_are_refused_with_their_place(source):
    folder = source / "annotations"
    path = write(folder / "more.csv", HEAD, line(TRAIN[0]))
    with pytest.raises(
        SetupError,
        match=f"train.csv, line 2: expected an id of its own, found {stem(TRAIN[0])}, which is at .*more.csv, line 2 too",
    ):
        KineticsSounds(source, classes="31").listing()
    write(path, HEAD, line((*TRAIN[0][:3], "tset")))
    with pytest.raises(
        SetupError, match=r"more.csv, line 2: unknown split 'tset': did you mean 'test'"
    ):
        KineticsSounds(source, classes="31").listing()
    write(path, HEAD.replace("label", "class"), "")
    with pytest.raises(
        SetupError, match=r"more.csv: expected the columns label, .*found class, youtube_id"
    ):
        KineticsSounds(source, classes="31").listing()
    path.unlink()
    for name in ("train.csv", "validate.csv"):
        (folder / name).unlink()
    with pytest.raises(
        SetupError,
        match=r"expected a CSV file of Kinetics .*found .*statistics.csv: name it with annotations",
    ):
        KineticsSounds(source, classes="31").listing()
    write(path, HEAD, *map(line, TRAIN))
    with pytest.raises(
        SetupError,
        match="annotations: expected clips of train, and of validate or test or both, found train",
    ):
        KineticsSounds(source, classes="31").listing()


def test_a_folder_without_the_videos_is_refused_with_a_name_that_was_expected(source, tmp_path):
    other = tree(tmp_path / "else", ["clip1.mp4"])
    with pytest.raises(
        SetupError,
        match=r"all \d+ are left out \(no such file\), such as -t.*_000.*mp4; there are others: clip1.mp4",
    ):
        KineticsSounds(other, classes="31", annotations=source / "annotations").listing()


def test_a_video_that_is_there_twice_is_refused(source):
    source_of(source, TRAIN[:1], "again")
    with pytest.raises(
        SetupError, match=rf"expected one file {stem(TRAIN[0])}.*, found again/.* and train/"
    ):
        KineticsSounds(source, classes="31").listing()
