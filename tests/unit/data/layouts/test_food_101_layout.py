"""UPMC Food-101: two lists without a head, and pictures in folders of splits and classes."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import Clip, Failure, Food101, Frames, Text
from support.trees import by_split, clip, groups, tree, write


def rows(split, many, start=0):
    for i in range(start, start + many):
        name = ["apple_pie", "baklava"][i % 2]
        # Of every four pictures of a class two are of one page.
        yield f'{name}_{i}.jpg,"{name} no. {i % 2}{i // 4}, easy",{name}'


@pytest.fixture
def source(tmp_path):
    for split, many, start in (("train", 24, 0), ("test", 8, 100)):
        lines = list(rows(split, many, start))
        write(tmp_path / "texts" / f"{split}_titles.csv", *lines)
        names = [line.split(",")[0] for line in lines]
        tree(tmp_path / "images" / split, [f"{n.rpartition('_')[0]}/{n}" for n in names])
    return tmp_path


def test_each_picture_has_its_title_and_validation_shares_none(source):
    listing = Food101(source, validation=0.25).listing()
    sizes = {split: len(ids) for split, ids in by_split(listing).items()}
    assert sizes == {"train": 18, "val": 6, "test": 8}
    assert listing.classes == ("apple_pie", "baklava")
    assert listing.modalities == ("image", "text")
    assert clip(listing, "baklava_101") == Clip(
        "baklava_101",
        "baklava",
        "test",
        {
            "image": Frames("images/test/baklava/baklava_101.jpg"),
            "text": Text("texts/test_titles.csv", "baklava no. 125, easy"),
        },
        "baklava: baklava no. 125, easy",
    )
    assert not groups(listing, "train") & groups(listing, "val")


def test_what_is_missing_is_left_out_and_a_list_that_is_not_there_refused(source):
    (source / "images/train/baklava/baklava_3.jpg").unlink()
    listing = Food101(source).listing()
    assert (
        listing.failures
        == (Failure("baklava_3", "images/train/baklava/baklava_3.jpg", "train", "no such file"),)
        or listing.failures[0].split == "val"
    )
    (source / "texts/test_titles.csv").unlink()
    with pytest.raises(SetupError, match=r"expected one test_titles\.csv, found none"):
        Food101(source).listing()
