"""Twitter-15 and 17: lists of targets in tweets, and a folder of pictures for each year."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import Clip, Failure, Frames, Text, Twitter15, Twitter17
from support.trees import by_split, clip, tree, write

HEAD = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"


def lists(folder, first):
    for part, many in (("train", 6), ("dev", 3), ("test", 3)):
        lines = [
            f"{i}\t{i % 3}\t{first + i // 2}.jpg\t$T$ says \"hi , it's {part}\tKing {i}"
            for i in range(1, many + 1)
        ]
        write(folder / f"{part}.tsv", HEAD, *lines)


@pytest.fixture
def source(tmp_path):
    lists(tmp_path / "absa_data/twitter2015", 100)
    lists(tmp_path / "absa_data/twitter", 200)
    tree(tmp_path, [f"IJCAI2019_data/twitter2015_images/{100 + n}.jpg" for n in range(5)])
    tree(tmp_path, [f"IJCAI2019_data/twitter2017_images/{200 + n}.jpg" for n in range(4)])
    return tmp_path


def test_a_sample_is_a_target_in_a_tweet(source):
    listing = Twitter15(source).listing()
    assert listing.name == "twitter-15"
    assert {s: len(ids) for s, ids in by_split(listing).items()} == {
        "train": 6,
        "val": 3,
        "test": 3,
    }
    assert listing.classes == ("negative", "neutral", "positive")
    words = Text("absa_data/twitter2015/dev.tsv", "$T$ says \"hi , it's dev\nKing 2")
    assert clip(listing, "val/2") == Clip(
        "val/2",
        "positive",
        "val",
        {"image": Frames("IJCAI2019_data/twitter2015_images/101.jpg"), "text": words},
        "101",
        {"target": "King 2"},
    )
    assert "104.jpg" in listing.about["unlisted"]
    assert "200.jpg" not in listing.about["unlisted"]
    assert (
        Twitter17(source)
        .listing()
        .clips[0]
        .pieces["image"]
        .path.startswith("IJCAI2019_data/twitter2017_images/")
    )


def test_what_is_missing_is_named_and_what_is_wrong_refused(source):
    (source / "IJCAI2019_data/twitter2015_images/103.jpg").unlink()
    listing = Twitter15(source).listing()
    assert listing.failures == (
        Failure("train/6", "twitter2015_images/103.jpg", "train", "no such file"),
    )
    write(source / "absa_data/twitter2015/dev.tsv", HEAD, "1\t3\t100.jpg\t$T$ !\tTyga")
    with pytest.raises(SetupError, match=r"dev\.tsv, line 2: unknown label '3'"):
        Twitter15(source).listing()
    write(source / "absa_data/twitter2015/dev.tsv", "1\t2\t100.jpg\t$T$ !\tTyga")
    with pytest.raises(SetupError, match="expected a head"):
        Twitter15(source).listing()
