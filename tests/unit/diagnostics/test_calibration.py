"""Calibration against a slow twin, and of predictions whose calibration is known."""

from __future__ import annotations

import json

import pytest
import torch

import equimodal as eq
from equimodal.diagnostics.outputs.calibration import calibration, calibration_of, reliability
from equimodal.diagnostics.outputs.predictions import predictions
from support.subjects import Many, data, loader_of


def slow(confidences: list[float], right: list[bool], bins: int) -> float:
    """The equation, with bins that are open below and closed above."""
    total = 0.0
    for b in range(bins):
        inside = [
            i
            for i, c in enumerate(confidences)
            if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)
        ]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            total += len(inside) / len(right) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_error_is_that_of_the_equation(bins: int) -> None:
    generator = torch.Generator().manual_seed(bins)
    confidences = torch.rand(300, generator=generator).double()
    right = torch.rand(300, generator=generator) < confidences**2
    found = reliability(confidences, right, bins, resamples=50)
    assert found.ece.value == pytest.approx(slow(confidences.tolist(), right.tolist(), bins))
    assert len(found.bins) == bins
    assert sum(each.samples for each in found.bins) == 300
    for each in found.bins:
        inside = (confidences > each.low) & (confidences <= each.high)
        assert each.samples == int(inside.sum())
        if each.samples:
            assert each.confidence == pytest.approx(float(confidences[inside].mean()))
            assert each.accuracy == pytest.approx(float(right[inside].double().mean()))
    assert found.confidence == pytest.approx(float(confidences.mean()))
    assert found.accuracy == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_confidence_on_an_edge_belongs_below(dtype: torch.dtype) -> None:
    confidences = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=dtype)
    found = reliability(confidences, torch.ones(6).bool(), bins=5, resamples=2)
    assert [each.samples for each in found.bins] == [2, 1, 1, 1, 1]


def test_known_calibration() -> None:
    generator = torch.Generator().manual_seed(0)
    confidences = 0.3 + 0.7 * torch.rand(20_000, generator=generator)
    honest = torch.rand(20_000, generator=generator) < confidences
    assert reliability(confidences, honest, resamples=20).ece.value < 0.02
    boastful = torch.rand(20_000, generator=generator) < confidences - 0.3
    found = reliability(confidences, boastful, resamples=50)
    assert found.ece.value == pytest.approx(0.3, abs=0.01)
    assert 0.28 < found.ece.low < found.ece.value < found.ece.high < 0.32


def test_empty_bins_have_no_numbers() -> None:
    found = reliability(torch.tensor([0.95, 0.97]), torch.tensor([True, False]), resamples=2)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["bins"][0] == {
        "low": 0, "high": pytest.approx(1 / 15), "samples": 0, "confidence": None, "accuracy": None
    }  # fmt: skip
    assert written["bins"][-1]["accuracy"] == 0.5
    assert written["ece"] == written["interval"]["value"] == pytest.approx(0.46)


def test_joint_and_alone() -> None:
    tensors = data(80, 2)
    with Many(2).subject() as subject:
        found = calibration(subject, loader_of(tensors), resamples=20)
        read = predictions(subject, loader_of(tensors))
    assert found == calibration_of(read, resamples=20)
    right = read.joint.labels == read.target
    assert found.joint == reliability(read.joint.confidences, right, resamples=20)
    alone = read.alone["b"]
    expected = slow(alone.confidences.tolist(), (alone.labels == read.target).tolist(), 15)
    assert found.alone["b"].ece.value == pytest.approx(expected)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["ece"] == found.joint.ece.value
    assert set(written["modalities"]) == {"a", "b"}
    assert written["modalities"]["a"]["bins"][3]["samples"] == found.alone["a"].bins[3].samples


def test_what_is_no_confidence_is_refused() -> None:
    right = torch.tensor([True, False])
    with pytest.raises(eq.SetupError, match=r"numbers from 0 to 1, found 0\.5 to 3"):
        reliability(torch.tensor([0.5, 3.0]), right)
    with pytest.raises(eq.SetupError, match="not finite"):
        reliability(torch.tensor([0.5, torch.nan]), right)
    with pytest.raises(eq.SetupError, match=r"found \(1,\), \(2,\) and 15 bins"):
        reliability(torch.tensor([0.5]), right)
    with pytest.raises(eq.SetupError, match="and 0 bins"):
        reliability(torch.tensor([0.5, 0.5]), right, bins=0)
