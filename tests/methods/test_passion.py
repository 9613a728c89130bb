"""PASSION against loops over samples and classes, against released numbers, and its edges."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equimodal as eq
from equimodal.functional import (
    lagging,
    prototype_similarity,
    similarity_gap,
    softened_divergence,
    updated_factors,
)
from equimodal.methods.objective.passion import PASSION
from support.classifiers import ByHand
from support.worlds import World, batch, weights


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_released_numbers() -> None:
    of = json.loads(Path(__file__).with_name("released.json").read_text())["passion"]
    target = torch.tensor(of["target"])
    own, known = prototype_similarity(double(of["own"]), target, 3)
    fused, _ = prototype_similarity(double(of["fused"]), target, 3)
    loss, distance = similarity_gap(own, fused, known)
    assert loss.mean().item() == pytest.approx(of["prototype_loss"], rel=1e-7)
    assert distance.mean().item() == pytest.approx(of["distance"], rel=1e-7)
    divergence = softened_divergence(double(of["student"]), double(of["teacher"]), 4.0)
    assert divergence.mean().item() == pytest.approx(of["divergence"], rel=1e-9)
    factors = of["factors"]
    found = updated_factors(
        double(factors["before"]), double(factors["distances"]), factors["rate"]
    )
    assert found.tolist() == pytest.approx(factors["after"], rel=1e-9)


def cosines(features: Tensor, target: list[int], rows: list[int]) -> dict[int, list[Tensor]]:
    """To the mean of each class among the rows, by class, one for every sample."""
    found = {}
    for k in sorted({target[i] for i in rows}):
        members = [features[i] for i in rows if target[i] == k]
        mean = sum(members[1:], start=members[0]) / len(members)
        found[k] = [(z @ mean) / (z.norm() * mean.norm()).clamp(min=1e-12) for z in features]
    return found


class Slow:
    """One sample and one class after the other."""

    def __init__(self, hand: ByHand, rate: float) -> None:
        self.hand, self.rate = hand, rate
        count = len(hand.names)
        self.beta, self.seen, self.samples = [1.0] * count, [0] * count, 0
        self.far, self.rows = [0.0] * count, [0] * count

    def loss(self, each: tuple[Tensor, ...], there: list[Tensor]) -> Tensor:
        *inputs, labels = each
        target, size, count = labels.tolist(), len(labels), len(self.beta)
        features = self.hand.features(inputs)
        alone, joint = self.hand.logits(inputs)
        masked = [
            torch.stack([z[i] if row[i] else torch.zeros_like(z[i]) for i in range(size)])
            for z, row in zip(features, there, strict=True)
        ]
        fused = cosines(torch.cat(masked, dim=1).detach(), target, list(range(size)))
        squares, distances = [], []
        for z, row in zip(masked, there, strict=True):
            own = cosines(z, target, [i for i in range(size) if row[i]])
            apart = [[own[k][i] - fused[k][i] for k in own] for i in range(size)]
            squares.append([sum(a * a for a in of) / len(of) for of in apart])
            distances.append([float(sum(a.detach().abs() for a in of)) / len(of) for of in apart])
        behind = [0.0] * count
        for i in range(size):
            present = [m for m in range(count) if there[m][i]]
            mean = sum(distances[m][i] for m in present) / len(present)
            for m in present:
                behind[m] += distances[m][i] / mean - 1
        total = F.cross_entropy(joint, labels)
        for m in range(count):
            often = self.samples / self.seen[m] if self.seen[m] else 1.0
            for i in [i for i in range(size) if there[m][i]]:
                p = (joint[i].detach() / 2).softmax(0)
                q = (alone[m][i] / 2).softmax(0)
                kl = 4 * sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True)) / len(p)
                term = 0.5 * self.beta[m] * kl
                if behind[m] > 0:
                    own_loss = -alone[m][i].log_softmax(0)[target[i]]
                    term = term + self.beta[m] * own_loss + 0.3 * squares[m][i]
                total = total + often * term / size
                self.far[m] += distances[m][i]
            number = int(there[m].sum())
            self.rows[m] += number
            self.seen[m] += number
        self.samples += size
        return total

    def end_epoch(self, third: int) -> None:
        d = [far / rows for far, rows in zip(self.far, self.rows, strict=True)]
        mean, rate = sum(d) / len(d), self.rate * 1.5**third
        moved = [
            min(4.0, max(0.1, b - rate * (mean - x) / mean))
            for b, x in zip(self.beta, d, strict=True)
        ]
        norm = math.sqrt(sum(b * b for b in moved))
        self.beta = [math.sqrt(len(moved)) * b / norm for b in moved]
        self.far, self.rows = [0.0] * len(d), [0] * len(d)


def presence(modalities: int, size: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.rand(size, generator=generator) < 0.6
    audio[:6] = True  # of every class
    return {"audio": audio, "visual": ~audio | (torch.arange(size) % 3 > 0)}


@pytest.mark.parametrize(("modalities", "missing"), [(2, False), (2, True), (3, True)])
def test_equals_the_hand_written_loop(modalities: int, missing: bool) -> None:
    world, twin = World(modalities), World(modalities)
    method = PASSION(prototypes=0.3, temperature=2.0, rate=0.4)
    balancer = world.balance(method, epochs=3)
    slow = Slow(ByHand(twin), 0.4)
    for epoch in range(3):
        for number in range(2):
            *inputs, target = batch(15, modalities, seed=2 * epoch + number)
            target[:6] = torch.arange(6) % 3
            each = (*inputs, target)
            present = presence(modalities, 15, 2 * epoch + number) if missing else {}
            loss = balancer.loss(world.model(*inputs), target, present=present or None)
            balancer.backward(loss)
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
            everyone = torch.ones(15, dtype=torch.bool)
            expected = slow.loss(each, [present.get(n, everyone) for n in slow.hand.names])
            slow.hand.backward(expected)
            slow.hand.step()
            assert loss.item() == pytest.approx(expected.item(), rel=1e-8)
        balancer.end_epoch()
        slow.end_epoch(epoch)
        assert method.factors.tolist() == pytest.approx(slow.beta, rel=1e-7)
    assert (method.factors - 1).abs().max() > 0.05, "no factor has moved"
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-7, atol=1e-9)
    ours, theirs = weights(method.readouts), weights(slow.hand.heads)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_the_rate_follows_the_length_of_training() -> None:
    for epochs, rate in ((300, 0.015), (30, 0.15)):
        method = PASSION()
        method.plan(epochs)
        assert method.rate == pytest.approx(rate)
    with pytest.raises(eq.SetupError, match=r"PASSION\(rate\) follows the length of training"):
        PASSION().plan(None)


def test_an_epoch_without_a_modality_leaves_the_factors() -> None:
    world, method = World(), PASSION(rate=0.5)
    balancer = world.balance(method)
    *inputs, target = batch(12)
    nobody = {"audio": torch.zeros(12, dtype=torch.bool)}
    loss = balancer.loss(world.model(*inputs), target, present=nobody)
    balancer.backward(loss)
    balancer.modulate()
    world.optimizer.step()
    balancer.end_epoch()
    assert loss.isfinite()
    assert method.factors.tolist() == [1, 1]


def test_modalities_at_one_distance_are_not_behind() -> None:
    same = torch.full((2, 4), 0.2)
    assert lagging(same, torch.ones(2, 4, dtype=torch.bool)).tolist() == [False, False]
    assert lagging(0 * same, torch.ones(2, 4, dtype=torch.bool)).tolist() == [False, False]


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"distillation": -1.0}, {"prototypes": -1.0}, {"rate": -1.0}):
        with pytest.raises(eq.SetupError, match=rf"PASSION\({next(iter(wrong))}\)"):
            PASSION(**wrong)
    with pytest.raises(eq.SetupError, match=r"PASSION\(temperature\)"):
        PASSION(temperature=0.0)
