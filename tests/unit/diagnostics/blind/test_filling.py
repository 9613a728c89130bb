"""What stands for a modality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from equimodal.diagnostics.blind.conditions import Condition
from equimodal.diagnostics.blind.filling import blank, filled, kind_of, means_of, partners
from equimodal.errors import SetupError


def test_blank_is_a_black_picture_silence_or_zeros_of_the_same_form() -> None:
    picture = blank(Image.new("RGB", (5, 7), (9, 8, 7)))
    assert (picture.size, picture.mode, picture.getextrema()) == ((5, 7), "RGB", ((0, 0),) * 3)
    sound = blank(np.ones(9, dtype="float32"))
    assert (sound.dtype, sound.tolist()) == (np.float32, [0.0] * 9)
    assert blank(torch.full((2, 3), torch.nan)).tolist() == [[0.0] * 3] * 2
    assert [each.getpixel((0, 0)) for each in blank([Image.new("L", (2, 2), 9)] * 2)] == [0, 0]


def test_the_mean_of_pictures_is_stretched_to_each() -> None:
    samples = [
        {"image": Image.new("RGB", (4, 4), (0, 0, 90))},
        {"image": Image.new("RGB", (9, 3), (100, 0, 30))},
    ]
    mean = means_of(samples, ["image"], seed=0)["image"](samples[1]["image"])
    assert mean.size == (9, 3)
    assert mean.getpixel((4, 1)) == (50, 0, 60)


def test_the_mean_of_sounds_counts_those_that_last_so_long() -> None:
    samples = [{"audio": np.array([1.0, 3.0], "float32")}, {"audio": np.array([3.0], "float32")}]
    mean = means_of(samples, ["audio"], seed=0)["audio"]
    assert mean(np.zeros(2, "float32")).tolist() == [2.0, 3.0]
    assert mean(np.zeros(1, "float32")).tolist() == [2.0]
    assert mean(np.zeros(3, "float32")).tolist() == [2.0, 3.0, 0.0]


def test_the_mean_of_arrays_is_that_of_one_shape() -> None:
    samples = [{"state": torch.tensor([[1.0]])}, {"state": torch.tensor([[4.0]])}]
    assert means_of(samples, ["state"], 0)["state"](torch.zeros(1, 1)).tolist() == [[2.5]]
    samples.append({"state": torch.zeros(2, 2)})
    with pytest.raises(SetupError, match="state: the mean needs arrays of one shape"):
        means_of(samples, ["state"], 0)


def test_the_mean_of_lists_is_that_of_their_places() -> None:
    samples = [{"film": [torch.zeros(1, 1), torch.ones(1, 1)]}, {"film": [torch.ones(1, 1)]}]
    first, second = means_of(samples, ["film"], 0)["film"]([torch.zeros(1, 1)] * 2)
    assert (first.item(), second.item()) == (0.5, 1.0)


def test_a_condition_leaves_the_rest_and_the_sample_as_they_are() -> None:
    sample = {"image": torch.ones(2), "text": "a", "answer": "x"}
    partner = {"image": torch.full((2,), 7.0), "text": "b", "answer": "y"}
    condition = Condition((("image", "other"), ("text", "removed")))
    made = filled(sample, partner, {}, condition)
    assert made["image"].tolist() == [7.0, 7.0]
    assert "text" not in made
    assert made["answer"] == "x"
    assert sample["text"] == "a"


@pytest.mark.parametrize("size", [2, 3, 50])
def test_everyone_has_another_partner(size: int) -> None:
    found = partners(size, seed=1)
    assert sorted(found) == list(range(size))
    assert all(place != other for place, other in enumerate(found))
    assert found == partners(size, seed=1)


def test_kinds_are_told_from_values() -> None:
    values = ["a", Image.new("RGB", (1, 1)), np.ones(3), torch.ones(2, 2), [torch.ones(1)]]
    assert [kind_of(v) for v in values] == ["text", "picture", "audio", "array", "list"]
    with pytest.raises(SetupError, match="found dict"):
        kind_of({})
