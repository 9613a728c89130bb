"""Pictures with titles, tweets, optical flow: look-alikes of the downloads become trained models."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from equimodal import data
from equimodal.cli import main
from equimodal.data.batches.frames import STILL, Frames, centre_box
from equimodal.data.batches.text import counted
from equimodal.data.batches.transform import Flows, Words, cropped_at_once, cropped_one_by_one
from support.trees import write

DRAW = np.random.default_rng(0)
COLOURS = {"apple_pie": 200, "baklava": 60}
QUICK = ["--epochs", "2", "--batch-size", "8", "--lr", "0.01", "--workers", "0"]


def paint(path: Path, grey: int, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = DRAW.integers(-20, 20, (size[1], size[0]))
    pixels = Image.fromarray((grey + noise).clip(0, 255).astype(np.uint8))
    pixels.convert(mode).save(path)


def food_101(raw: Path) -> None:
    for split, start, many in (("train", 0, 30), ("test", 100, 8)):
        rows = []
        for number in range(start, start + many):
            label = list(COLOURS)[number % 2]
            paint(raw / "images" / split / label / f"{label}_{number}.jpg", COLOURS[label])
            title = "" if number == 4 else f"Best {label.replace('_', ' ')}, no. {number}"
            rows.append((f"{label}_{number}.jpg", title, label))
        (raw / "texts").mkdir(exist_ok=True)
        with (raw / "texts" / f"{split}_titles.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def twitter_15(raw: Path) -> None:
    number = 0
    for part, many in (("train", 18), ("dev", 6), ("test", 6)):
        rows = ["index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"]
        for _ in range(many):
            number += 1
            paint(raw / "twitter2015_images" / f"{number}.jpg", 100)
            rows.append(f"{number}\t{number % 3}\t{number}.jpg\tSo {number % 3} $T$ !\tTyga")
        write(raw / "twitter2015" / f"{part}.tsv", *rows)


def ucf_101(raw: Path) -> None:
    lists = raw / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 Left", "2 Right")
    named: dict[str, list[str]] = {"train": [], "test": []}
    for label, grey in (("Left", 90), ("Right", 166)):
        for group in range(1, 11):
            name = f"v_{label}_g{group:02d}_c01"
            for frame in range(1, 9):
                file = f"{name}/frame{frame:06d}.jpg"
                paint(raw / "jpegs_256" / file, 120)
                paint(raw / "tvl1_flow" / "u" / file, grey, mode="L")
                paint(raw / "tvl1_flow" / "v" / file, STILL, mode="L")
            named["test" if group <= 2 else "train"].append(f"{label}/{name}.avi")
    for split, names in named.items():
        write(lists / f"{split}list01.txt", *names)


MAKERS = {
    "food-101": (food_101, {"image": (3, 1, 32, 32), "text": (4096,)}),
    "twitter-15": (twitter_15, {"image": (3, 1, 32, 32), "text": (4096,)}),
    "ucf-101": (ucf_101, {"visual": (3, 3, 32, 32), "flow": (2, 3, 32, 32)}),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_download_becomes_a_trained_model(name: str, tmp_path: Path) -> None:
    make, shapes = MAKERS[name]
    make(tmp_path / "raw")
    out = tmp_path / "out"
    command = ["prepare", name, "--source", str(tmp_path / "raw"), "--out", str(out)]
    assert main([*command, "--workers", "1", "--fps", "10", "--keep-partial"]) == 0
    told = json.loads((out / "dataset.json").read_text())
    assert told["failures"] == 0
    splits = data.load(out, size=32)
    assert splits.train.shapes == shapes
    assert not set(splits.train.groups.tolist()) & set(splits.test.groups.tolist())
    run = tmp_path / "run"
    command = ["train", name, "--data", str(out), "--method", "ogm-ge", "--view", "size=32", *QUICK]
    assert main([*command, "--out", str(run), "--refit"]) == 0
    joined = splits.refitted().train
    assert joined.ids == [*splits.train.ids, *splits.val.ids]
    for one, other in zip(
        joined[len(splits.train)], splits.train.maker(splits.val.stored[0], 0, 0), strict=True
    ):
        assert str(one) == str(other), "a clip of val, seen as in training"
    result = json.loads((run / "result.json").read_text())
    assert set(shapes) == {k.partition("/")[2] for k in result["test"] if k.startswith("accuracy/")}
    if name == "food-101":
        lacking = [
            clip
            for part in (splits.train, splits.val)
            for clip, there in zip(
                part.ids,
                part.transform(next(iter(part.loader(40)))).present["text"].tolist(),
                strict=True,
            )
            if not there
        ]
        assert lacking == ["apple_pie_4"], "the picture without a title"
        stream = data.stream(out, "test", size=32)
        for one, other in zip(splits.test.loader(4), stream.loader(4), strict=True):
            assert torch.equal(one[1], other[1]), "words of a stream are the same"


def test_words_tell_where_pictures_do_not(tmp_path: Path) -> None:
    """The titles name the class: a linear reading of their counts is right on every test sample."""
    food_101(tmp_path / "raw")
    out = tmp_path / "out"
    command = ["prepare", "food-101", "--source", str(tmp_path / "raw"), "--out", str(out)]
    assert main([*command, "--workers", "1", "--allow-missing", "0.1"]) == 0

    def words(part: str) -> tuple[Tensor, Tensor]:
        clips = getattr(data.load(out, modalities=("text",)), part)
        made = clips.transform(next(iter(clips.loader(40))))
        return made[0], made[1]

    known, labels = words("train")
    asked, truth = words("test")
    means = torch.stack([known[labels == label].mean(0) for label in (0, 1)])
    assert torch.equal((asked @ means.T).argmax(1), truth)
    assert torch.allclose(asked.square().mean(1), torch.ones(len(asked)))


def test_counts_are_the_same_everywhere_and_keep_neighbours() -> None:
    one, other = counted("hot dog", 1 << 16), counted("dog hot", 1 << 16)
    assert one.sum() == other.sum() == 3
    assert not torch.equal(one, other)
    assert torch.equal(counted("Hot, DOG!", 1 << 16), one)
    assert one.nonzero().flatten().tolist() == [14717, 26925, 33223]
    assert counted("a " * 1000, 64).max() == 255
    assert not Words()(counted("", 64)[None]).any()


@pytest.mark.parametrize("crop", [cropped_one_by_one, cropped_at_once])
def test_mirrored_flow_goes_the_other_way(crop: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from equimodal.data.batches import transform

    monkeypatch.setattr(transform, "cropped_one_by_one", crop)
    pixels = torch.full((2, 1, 8, 8, 2), STILL, dtype=torch.uint8)
    pixels[:, :, :, :4, 0] += 32  # the left half moves to the right
    pixels[:, :, :4, :, 1] += 64  # the upper half moves down
    box = torch.tensor([centre_box(8, 8)] * 2)
    plain, mirrored = Flows(8)(Frames(pixels, box, torch.tensor([False, True])))
    assert plain.shape == (2, 1, 8, 8)
    assert torch.allclose(plain[0, 0, :, :4], torch.ones(8, 4))
    assert not plain[0, 0, :, 4:].any()
    assert torch.allclose(mirrored[0, 0, :, 4:], -torch.ones(8, 4)), "on the right, to the left"
    assert torch.equal(plain[1], mirrored[1]), "down stays down"
