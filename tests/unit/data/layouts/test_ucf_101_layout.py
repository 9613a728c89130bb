"""UCF-101: folders of pictures and of flow, published folds, clips that are cut from one video."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import UCF101, Clip, Failure, Flow, Stills
from support.trees import by_split, clip, groups, tree, write

CLASSES = ("ApplyEyeMakeup", "HandstandPushups")


def videos(numbers):
    """As the lists spell them, the second class otherwise in the name than in the folder."""
    return [
        f"{label}/v_{label.replace('Hands', 'HandS')}_g{number:02d}_c{part:02d}.avi"
        for label in CLASSES
        for number in numbers
        for part in (1, 2)
    ]


@pytest.fixture
def source(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", *(f"{n} {label}" for n, label in enumerate(CLASSES, 1)))
    train, test = videos(range(8, 16)), videos(range(1, 3))
    write(lists / "trainlist01.txt", *(f"{v} {1 + (v[0] == 'H')}" for v in train))
    write(lists / "testlist01.txt", *test)
    write(lists / "trainlist02.txt", *(f"{v} {1 + (v[0] == 'H')}" for v in videos(range(1, 8))))
    for video in train + test:
        name = video.partition("/")[2].removesuffix(".avi")
        for folder in ("tvl1_flow/u", "tvl1_flow/v"):
            tree(tmp_path / folder / name, ["frame000001.jpg"])
        name = name.replace("HandStand", "Handstand")  # as in the archive of pictures
        tree(tmp_path / "ucf101_jpegs_256/jpegs_256" / name, ["frame000001.jpg"])
    return tmp_path


def test_each_video_of_the_fold_is_a_sample_and_validation_has_whole_sources(source):
    listing = UCF101(source, validation=0.25).listing()
    sizes = {split: len(ids) for split, ids in by_split(listing).items()}
    assert sizes == {"train": 24, "val": 8, "test": 8}
    name = "v_HandStandPushups_g01_c02"
    assert clip(listing, name) == Clip(
        name,
        "HandstandPushups",
        "test",
        {
            "visual": Stills("ucf101_jpegs_256/jpegs_256/v_HandstandPushups_g01_c02", 25.0),
            "flow": Flow(f"tvl1_flow/u/{name}", f"tvl1_flow/v/{name}", 25.0),
        },
        "HandstandPushups/g01",
    )
    assert not groups(listing, "train") & groups(listing, "val")
    assert "published fold 1" in listing.protocol


def test_what_is_missing_is_left_out_and_what_is_wrong_refused(source):
    lost = source / "tvl1_flow/v/v_ApplyEyeMakeup_g01_c01"
    (lost / "frame000001.jpg").unlink()
    lost.rmdir()
    assert UCF101(source).listing().failures == (
        Failure(
            "v_ApplyEyeMakeup_g01_c01",
            "tvl1_flow/v/v_ApplyEyeMakeup_g01_c01",
            "test",
            "no such file",
        ),
    )
    with pytest.raises(SetupError, match=r"expected one testlist02\.txt, found none"):
        UCF101(source, fold="2").listing()
    with pytest.raises(SetupError, match="unknown fold '4'"):
        UCF101(source, fold="4").listing()
    write(source / "ucfTrainTestlist/testlist01.txt", "Archery/v_Archery_g01_c01.avi")
    with pytest.raises(SetupError, match=r"testlist01\.txt, line 1: expected CLASS/v_NAME"):
        UCF101(source).listing()
