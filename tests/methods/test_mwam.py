"""MWAM against SciPy's transform and a plain loop, and numbers of the released code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.mwam import cosine_transform, frequency_factors, frequency_ratios
from equimodal.methods.gradient.mwam import MWAM
from support.worlds import World, batch, train, weights


def wave(k: int, n: int, size: int) -> float:
    scale = math.sqrt((1 if k == 0 else 2) / size)
    return scale * math.cos(math.pi * (n + 0.5) * k / size)


def slow_ratio(square: Any, window: int = 2) -> list[float]:
    """Of one patch: low over high frequencies, from the definition of the transform."""
    height, width = square.shape
    found = np.zeros((height, width))
    for k in range(height):
        for m in range(width):
            for i in range(height):
                for j in range(width):
                    found[k, m] += square[i, j] * wave(k, i, height) * wave(m, j, width)
    return [
        abs(found[i, j] / (found[height - 1 - i, width - 1 - j] + 1e-6))
        for i in range(window)
        for j in range(window)
    ]


def test_the_transform_is_orthonormal() -> None:
    for size in (1, 2, 5, 8):
        waves = cosine_transform(size, torch.zeros((), dtype=torch.float64))
        torch.testing.assert_close(waves @ waves.T, torch.eye(size, dtype=torch.float64))
        assert waves[size - 1, 0].item() == pytest.approx(wave(size - 1, 0, size))


def test_maps_are_cut_into_squares() -> None:
    values = torch.randn(2, 3, 9, 13, dtype=torch.float64)
    expected = []
    for sample in values.numpy():
        parts: list[float] = []
        for plane in sample:
            for top in (0, 4):
                for left in (0, 4, 8):
                    parts += slow_ratio(plane[top : top + 4, left : left + 4])
        expected.append(sum(parts) / len(parts))
    found = frequency_ratios(values, patch=4)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    clips = values.view(2, 1, 3, 9, 13)
    torch.testing.assert_close(frequency_ratios(clips, patch=4), found)


def test_series_are_cut_along_time() -> None:
    values = torch.randn(2, 3, 11, dtype=torch.float64)
    expected = []
    for sample in values.numpy():
        parts: list[float] = []
        for row in sample:
            for start in (0, 5):
                piece = row[start : start + 5]
                f = [sum(piece[n] * wave(k, n, 5) for n in range(5)) for k in range(5)]
                parts += [abs(f[k] / (f[4 - k] + 1e-6)) for k in range(2)]
        expected.append(sum(parts) / len(parts))
    found = frequency_ratios(values, patch=5)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_short_input_is_one_patch() -> None:
    assert frequency_ratios(torch.randn(3, 1)).shape == (3,)
    assert frequency_ratios(torch.randn(3, 1, 3, 2)).isfinite().all()


RELEASED = [
    (
        [[-2.3, -0.4, -1.1, 1.0, -0.9, -1.3, -0.6, -0.9, -1.3, 1.5, 0.3, 2.0, 1.1, -1.2, 0.1,
          0.3, 0.2, -0.6, -1.3, -0.7, -0.0, 0.2, 0.2, -0.8, 1.0, -0.2, -0.8, -1.6, -0.7, 1.5,
          -0.4, -0.9, -0.1, 0.6, -0.0, -1.2, -1.3, -1.1, 1.2, 0.9, 0.7, 0.1, -1.1, 1.9, -0.3,
          0.2, -1.3, 0.2, -3.1, -0.1, 1.7, -0.7, -0.6, 2.8, 0.9, 0.9, -1.4, -2.1, 0.0, -0.4,
          -0.3, 0.9, 1.5, -0.0],
         [0.9, 1.9, 3.0, 1.9, 2.2, 3.0, 0.2, 3.0, 2.7, 1.4, 2.1, 4.0, 2.4, 3.6, 2.1, 3.5, 1.3,
          2.3, 1.1, 2.4, 2.9, 3.2, 1.6, 2.4, 1.8, 3.0, 2.4, 1.5, 1.5, 2.3, 0.7, 2.9, 1.4, 2.6,
          0.5, 3.4, 2.4, 2.3, 1.7, 0.8, 2.2, 1.9, 2.0, 1.8, 1.6, 4.7, 0.5, 2.4, 1.5, 1.9, 3.4,
          2.2, 3.1, 2.9, 1.4, 1.4, 3.1, 1.4, 2.5, 1.8, 2.4, 1.3, 3.7, 1.4],
         [-2.9, -2.142857143, -4.385714286, -1.428571429, 1.928571429, 1.685714286, 1.142857143,
          2.5, -2.5, -2.942857143, -1.385714286, -0.728571429, 2.028571429, -2.814285714,
          0.842857143, 2.2, -2.8, -3.442857143, -2.685714286, -0.628571429, -2.171428571,
          -1.514285714, 2.742857143, 0.4, -3.8, -4.342857143, -2.085714286, -1.328571429,
          2.628571429, 0.985714286, 1.742857143, -0.7, -1.2, -6.042857143, 1.714285714,
          -0.828571429, -2.971428571, 4.085714286, -3.957142857, 1.8, -2.8, -2.042857143,
          0.414285714, 1.371428571, -1.771428571, 0.085714286, 2.442857143, 2.2, -3.2,
          -4.742857143, 1.514285714, 0.471428571, 0.028571429, 3.585714286, 1.042857143, 3.1,
          -1.4, -0.342857143, -1.685714286, 0.571428571, 2.028571429, -1.414285714, 1.742857143,
          1.6]],
        [24.29140840550167, 79.32760701041282, 6.350930190665075],
        [0.5372020558408452, 0.5000000000000036, 1.4985502447323995],
    ),
    (
        [[-0.8, 0.3, -0.9, 0.5, -1.6, -0.3, -1.5, 0.7, -0.3, 0.3, -1.0, -1.0, -0.4, -2.2, 1.2,
          1.3, -1.8, -0.5, 0.5, 0.7, 1.6, 0.3, 0.2, -0.5, 1.4, 0.8, -0.5, -0.1, 2.4, 0.8, 0.8,
          0.3, -0.1, -0.8, 2.2, 0.0, -0.2, -1.5, -0.3, -0.2, 0.6, -0.3, -1.6, -0.9, 0.7, 1.0,
          -0.2, -2.0, -0.4, -1.5, -0.4, 1.1, -0.4, -0.0, 1.2, 0.5, -0.5, -0.4, 1.3, 0.0, 0.3,
          0.5, -2.6, -0.8],
         [4.1, 2.1, 2.3, 2.9, 2.7, 1.1, 3.2, 3.3, 1.9, 2.0, 2.0, 1.8, 1.9, 1.6, 1.2, 2.7, 3.0,
          1.5, 1.0, 2.5, 3.6, 0.7, 2.1, 1.6, 2.8, 1.4, 2.6, 2.4, 3.8, 3.1, 1.4, 0.8, 0.9, 2.2,
          0.1, 2.2, 0.9, 2.0, 1.9, 2.8, 3.0, 0.6, 1.5, 1.1, 0.9, 3.8, 2.6, 2.6, 2.2, 0.6, 1.5,
          1.0, 2.0, 1.0, 1.5, 4.4, 1.8, 1.9, 2.7, 1.9, 2.2, 2.1, 2.3, 1.8],
         [-4.7, -0.742857143, 0.714285714, 2.371428571, -2.871428571, 0.085714286, 2.342857143,
          5.0, -5.3, -1.242857143, -1.285714286, -1.528571429, 2.128571429, 1.685714286,
          0.242857143, 5.1, -1.3, -4.142857143, -3.085714286, -2.328571429, 1.228571429,
          3.585714286, 4.542857143, 1.3, -3.2, -3.742857143, -2.185714286, 2.271428571,
          -1.771428571, -0.014285714, 4.642857143, 3.9, -2.9, -3.642857143, -1.485714286,
          -0.328571429, -1.671428571, 2.085714286, 3.242857143, 3.9, -0.8, -0.242857143,
          -2.185714286, -2.728571429, 1.628571429, 5.585714286, 2.942857143, 6.1, -0.7,
          -3.042857143, -1.685714286, -1.028571429, -2.671428571, -1.014285714, -0.257142857,
          5.3, -2.9, -1.242857143, 2.414285714, 0.671428571, -2.371428571, 3.085714286,
          3.142857143, 5.7]],
        [5.281607837247612, 59.07285425358963, 35.29423331497702],
        [1.499647695825504, 0.5000024459296601, 0.5242533151770075],
    ),
]  # fmt: skip


@pytest.mark.parametrize("step", [0, 1])
def test_numbers_of_the_released_code(step: int) -> None:
    """Its ratios are sums over the batch; the factors come from their quotients alone."""
    bank = torch.zeros(3, dtype=torch.float64)
    for number in range(step + 1):
        inputs, ratios, factors = RELEASED[number]
        maps = [torch.tensor(x, dtype=torch.float64).view(1, 1, 8, 8) for x in inputs]
        found = torch.cat([4 * frequency_ratios(x) for x in maps])
        assert found.tolist() == pytest.approx(ratios, rel=1e-7)
        bank = (bank + found) / 2
        assert frequency_factors(found, bank).tolist() == pytest.approx(factors, rel=1e-6)


def test_equals_the_hand_written_loop() -> None:
    """Vectors of widths 4 and 5, read as series of one patch each."""
    world, twin = World(), World()
    method = MWAM()
    batches = [batch(9, seed=i) for i in range(4)]
    train(world.balance(method), batches)
    bank, seen = [0.0, 0.0], []
    for *inputs, target in batches:
        features = [e(x) for e, x in zip(twin.encoders.values(), inputs, strict=True)]
        twin.optimizer.zero_grad()
        F.cross_entropy(twin.model.head(torch.cat(features, 1)), target).backward()
        ratios = []
        for x in inputs:
            size, parts = x.shape[1], []
            for row in x.tolist():
                f = [sum(row[n] * wave(k, n, size) for n in range(size)) for k in range(size)]
                parts += [abs(f[k] / (f[size - 1 - k] + 1e-6)) for k in range(2)]
            ratios.append(sum(parts) / len(parts))
        bank = [(b + r) / 2 for b, r in zip(bank, ratios, strict=True)]
        mean = sum(bank) / 2
        factors = [1.5 - 1 / (1 + math.exp(-10 * (r / (mean + 1e-6) - 1))) for r in ratios]
        seen += factors
        for factor, encoder in zip(factors, twin.encoders.values(), strict=True):
            for p in encoder.parameters():
                p.grad = factor * p.grad
        twin.optimizer.step()
    assert max(seen) - min(seen) > 0.3
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-10)


def test_an_absent_modality_keeps_its_bank_and_the_others_compare() -> None:
    world = World()
    method = MWAM()
    balancer = world.balance(method)
    *inputs, target = batch(8)
    present = {"visual": torch.zeros(8, dtype=torch.bool)}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
    balancer.modulate()
    world.optimizer.step()
    assert method.bank[1] == 0
    assert method.bank[0] > 0
    found = frequency_factors(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 0.0]))
    assert found[1] == 1


class Worded(nn.Module):
    """An encoder of token ids has no frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"audio": nn.Linear(4, 8), "text": nn.Embedding(9, 8)})
        self.head = nn.Linear(16, 3)

    def forward(self, audio: Tensor, text: Tensor) -> Tensor:
        parts = [self.encoders["audio"](audio), self.encoders["text"](text)]
        logits: Tensor = self.head(torch.cat(parts, dim=1))
        return logits


def test_inputs_without_frequencies_are_refused() -> None:
    model = Worded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(MWAM(), model, dict(model.encoders.items()), model.head, optimizer)
    with pytest.raises(eq.MatchError, match="the encoder of text"):
        balancer.loss(model(torch.randn(5, 4), torch.arange(5)), torch.tensor([0, 1, 2, 0, 1]))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"MWAM\(patch\).*found 1"):
        MWAM(patch=1)
    with pytest.raises(eq.SetupError, match=r"MWAM\(window\).*found 0"):
        MWAM(window=0)
