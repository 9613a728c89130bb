"""Disturbed modalities against a slow twin, and where the accuracy under noise is known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

import equimodal as eq
from equimodal.diagnostics.contributions.robustness import robustness
from equimodal.diagnostics.contributions.subsets import subsets
from support.subjects import Many, Sum, Through, data, loader_of


def test_missing_and_swapped_are_the_subsets_without_one() -> None:
    model, batches = Many(3), loader_of(data(50))
    with model.subject() as subject:
        found = robustness(subject, batches, seed=2)
        of = subsets(subject, batches, seed=2)
    every = ("a", "b", "c")
    assert found.clean == of.of("zero", *every)
    kinds = {"zero": found.zeros, "mean": found.missing, "shuffled": found.swapped}
    for fill, changes in kinds.items():
        for name in every:
            rest = [other for other in every if other != name]
            assert changes[name].value == of.of(fill, *rest)
            assert changes[name].drop == of.versus(fill, every, rest)


def test_accuracy_under_noise_is_that_of_the_gauss_integral() -> None:
    """One number per sample, d away from the border on either side, and as large a deviation."""
    target = torch.arange(2).repeat(2000)
    x = (2.0 * target - 1) * 3
    a = torch.stack([-x, x], dim=1)
    idle = torch.zeros(4000, 2)
    with Through(2, Sum()).subject() as subject:
        found = robustness(
            subject, loader_of([a, idle, target], 500), levels=(0.5, 1.0, 2.0), resamples=50
        )
    assert list(found.noised) == [0.5, 1.0, 2.0]
    for level, changes in found.noised.items():
        # The two elements have noise of their own: the difference 2d has level * 3 * sqrt(2).
        expected = 0.5 * (1 + math.erf(6 / (level * 3 * math.sqrt(2)) / math.sqrt(2)))
        assert changes["a"].value.value == pytest.approx(expected, abs=0.01)
        assert changes["a"].drop.value == pytest.approx(1 - expected, abs=0.01)
        assert changes["b"].value.value == 1  # without deviation, no noise
        assert changes["b"].drop.high == 0


def turned(batch: list[Tensor]) -> list[Tensor]:
    first, *rest = batch
    return [-first, *rest]


@pytest.mark.parametrize("shuffle", [False, True])
def test_corrupted_inputs_are_paired_with_clean_ones(shuffle: bool) -> None:
    model, tensors = Many(3), data(50)
    functions = {"turned": turned, "none": lambda batch: batch}
    with model.subject() as subject:
        found = robustness(
            subject, loader_of(tensors, shuffle=shuffle), corrupt=functions, levels=()
        )
        bad = {"halved": lambda batch: [part[:2] for part in batch]}
        with pytest.raises(eq.MatchError, match=r"corrupt\['halved'\].*16 samples.*found 2"):
            robustness(subject, loader_of(tensors), corrupt=bad)
    with torch.no_grad():
        first, *rest, target = tensors
        expected = (model(-first, *rest).argmax(dim=1) == target).double().mean()
        clean = (model(first, *rest).argmax(dim=1) == target).double().mean()
    assert found.corrupted["turned"].value.value == pytest.approx(float(expected))
    assert found.corrupted["turned"].drop.value == pytest.approx(float(clean - expected))
    same = found.corrupted["none"].drop
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert found.noised == {}
    assert found.to_dict()["noised"] == {}


def test_the_same_seed_draws_the_same() -> None:
    with Many(2).subject() as subject:
        batches = loader_of(data(40, 2), 16)
        first, again = (robustness(subject, batches, seed=1, resamples=20) for _ in range(2))
        other = robustness(subject, batches, seed=2, resamples=20)
    assert first == again
    assert first.noised != other.noised
    assert first.swapped != other.swapped


def test_json_has_what_the_report_shows() -> None:
    with Many(2).subject() as subject:
        found = robustness(subject, loader_of(data(40, 2)), levels=(1.0, 0.25))
    written = json.loads(json.dumps(found.to_dict()))
    for kind in ("missing", "noised", "swapped"):
        assert set(written[kind]) == {"a", "b"}
        assert set(written[kind]["a"]) == {"value", "low", "high"}
        assert set(written["drop"][kind]) == {"a", "b"}
    assert written["noised"] == written["levels"]["1"]
    assert written["levels"]["0.25"]["b"]["value"] == found.noised[0.25]["b"].value.value
    value, drop = written["missing"]["a"]["value"], written["drop"]["missing"]["a"]["value"]
    assert written["clean"]["value"] - value == pytest.approx(drop)


@pytest.mark.parametrize("levels", [(0.0,), (-1.0,), (math.inf,)])
def test_levels_are_positive(levels: tuple[float, ...]) -> None:
    with Many(2).subject() as subject, pytest.raises(eq.SetupError, match="positive numbers"):
        robustness(subject, loader_of(data(40, 2)), levels=levels)
