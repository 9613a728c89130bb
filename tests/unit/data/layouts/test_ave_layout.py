"""AVE: the official splits, event boundaries, videos with two events."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import AVE, Clip, Failure, Frames, Sound
from support.trees import by_split, clip, tree, write

TRAIN = [
    "Church bell&RUhOCu3LNXM&good&0&10",
    "Church bell&MH3m4AwEcRY&good&6&8",
    "Male speech, man speaking&0giAfYq9oVM&good&3&9",
    "Bark&-3jS8tWfLJxI&good&0&0",
    "Church bell&two__events&good&0&4",
    "Bark&two__events&good&5&9",
]
VAL = ["Bark&E_1Asfq8it4&good&0&3", "Bark&both__split&good&0&3"]
TEST = ["Bark&1H2XD5lUp8w&good&0&10", "Church bell&both__split&good&2&3"]
HEAD = "Category&VideoID&Quality&StartTime&EndTime"


@pytest.fixture
def source(tmp_path):
    rows = TRAIN + VAL + TEST
    source = tree(tmp_path / "AVE_Dataset", {f"AVE/{row.split('&')[1]}.mp4" for row in rows})
    write(source / "Annotations.txt", HEAD, *rows)
    for name, part in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        write(source / f"{name}Set.txt", *part)
    return source


def test_every_event_is_a_sample_in_its_official_split(source):
    listing = AVE(source).listing()
    assert listing.classes == ("Bark", "Church bell", "Male speech, man speaking")
    assert by_split(listing) == {
        "train": [
            "-3jS8tWfLJxI",
            "0giAfYq9oVM",
            "MH3m4AwEcRY",
            "RUhOCu3LNXM",
            "two__events/Bark/5-9",
            "two__events/Church bell/0-4",
        ],
        "val": ["E_1Asfq8it4", "both__split/Bark/0-3"],
        "test": ["1H2XD5lUp8w", "both__split/Church bell/2-3"],
    }
    path = "AVE/MH3m4AwEcRY.mp4"
    assert clip(listing, "MH3m4AwEcRY") == Clip(
        "MH3m4AwEcRY",
        "Church bell",
        "train",
        {"audio": Sound(path), "visual": Frames(path)},
        "MH3m4AwEcRY",
        {"event_start": 6.0, "event_end": 8.0},
    )
    assert clip(listing, "two__events/Bark/5-9").group == "two__events"
    assert listing.protocol == (
        "train, val and test as listed; videos with events in two splits (1): both__split"
    )


def test_lists_may_lack_or_have_a_first_line_of_names_and_rows_twice(source):
    before = AVE(source).listing()
    write(source / "Annotations.txt", *TRAIN, *VAL, *TEST)
    write(source / "trainSet.txt", HEAD, *TRAIN, TRAIN[0])
    assert AVE(source).listing() == before


def test_videos_that_are_not_there_are_failures(source):
    (source / "AVE" / "two__events.mp4").unlink()
    tree(source, ["AVE/other.mp4"])
    listing = AVE(source).listing()
    assert listing.failures == tuple(
        Failure(f"two__events/{what}", "AVE/two__events.mp4", "train", "no such file")
        for what in ("Bark/5-9", "Church bell/0-4")
    )
    assert listing.about["unlisted"] == "files that belong to no clip (1): AVE/other.mp4"


def test_annotated_events_of_no_split_are_counted(source):
    write(source / "Annotations.txt", HEAD, *TRAIN, *VAL, *TEST, "Bark&nowhere&good&0&1")
    assert AVE(source).listing().protocol.endswith("; annotated events in no split: 1")


def test_faults_of_the_lists_are_refused_with_their_place(source):
    write(source / "trainSet.txt", *TRAIN, "Barc&E_1Asfq8it4&good&0&3")
    with pytest.raises(
        SetupError, match=r"trainSet.txt, line 7: unknown category 'Barc': did you mean 'Bark'"
    ):
        AVE(source).listing()
    write(source / "trainSet.txt", *TRAIN, VAL[0])
    with pytest.raises(
        SetupError,
        match=r"valSet.txt, line 1: expected every event in one split, found that of .*trainSet.txt, line 7",
    ):
        AVE(source).listing()
    write(source / "trainSet.txt", *TRAIN, "Bark&x&good&0")
    with pytest.raises(SetupError, match=r"trainSet.txt, line 7: expected 5 fields"):
        AVE(source).listing()
    write(source / "trainSet.txt", *TRAIN, "Bark&x&good&0&end")
    with pytest.raises(SetupError, match=r"trainSet.txt, line 7: EndTime: expected seconds"):
        AVE(source).listing()
    (source / "trainSet.txt").unlink()
    with pytest.raises(
        SetupError, match=r"trainSet.txt: no such file: expected Annotations.txt, trainSet.txt"
    ):
        AVE(source).listing()


def test_events_without_a_length_are_named_and_shared_videos_left_out_where_asked(source):
    listing = AVE(source).listing()
    assert listing.about["events without a length"] == "-3jS8tWfLJxI (Bark, 0 to 0)"
    apart = AVE(source, protocol="videos").listing()
    assert by_split(apart)["val"] == ["E_1Asfq8it4"]
    assert by_split(apart)["test"] == by_split(listing)["test"]
