"""Rules on losses against plain loops, in a method and without one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.methods.objective.loss_rules import (
    InverseFrequency,
    LossRule,
    RunningMagnitude,
    Uncertainty,
)
from equimodal.methods.objective.loss_weighting import LossWeighting
from support.classifiers import ByHand
from support.worlds import World, batch, train, weights


def batches(modalities: int, seed: int) -> list[tuple[Tensor, ...]]:
    return [batch(9, modalities, seed=10 * seed + i) for i in range(5)]


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (3, 1)])
def test_running_magnitude_equals_the_loop(modalities: int, seed: int) -> None:
    world, twin = World(modalities, seed=seed), World(modalities, seed=seed)
    method = LossWeighting(RunningMagnitude(0.7))
    train(world.balance(method), batches(modalities, seed))
    hand, means = ByHand(twin), [math.nan] * modalities
    for each in batches(modalities, seed):
        *alone, joint = hand.losses(each)
        known = [m for m in means if not math.isnan(m)]
        loss: Any = joint
        for own, mean in zip(alone, means, strict=True):
            loss = loss + own * (sum(known) / len(known) / mean if known else 1.0)
        hand.backward(loss)
        hand.step()
        now = [own.item() for own in alone]
        means = [n if math.isnan(m) else 0.7 * m + 0.3 * n for m, n in zip(means, now, strict=True)]
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)
    assert method.rule.means.tolist() == pytest.approx(means, rel=1e-9)


def test_uncertainty_equals_the_loop() -> None:
    world, twin = World(), World()
    method = LossWeighting(Uncertainty())
    train(world.balance(method), batches(2, 0))
    hand = ByHand(twin)
    s = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    own = torch.optim.SGD([s], lr=0.1, momentum=0.9, weight_decay=1e-2)
    for each in batches(2, 0):
        first, second, joint = hand.losses(each)
        own.zero_grad()
        hand.backward(joint + first / s[0].exp() + second / s[1].exp() + s.sum() / 2)
        hand.step()
        own.step()
    assert s.abs().min() > 0.01
    torch.testing.assert_close(method.rule.log_variances.data, s.data, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


def test_frequency_is_of_all_samples_so_far() -> None:
    world = World()
    method = LossWeighting(InverseFrequency())
    balancer = world.balance(method)
    *inputs, target = batch(8)
    for many in (2, 6):
        present = {"visual": torch.arange(8) < many}
        balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    assert method.rule.weights().tolist() == pytest.approx([2 / 3, 4 / 3])  # 1 and 1 / 2 of all


@pytest.mark.parametrize("rule", [InverseFrequency(), RunningMagnitude(0.5), Uncertainty()])
def test_a_loop_without_logits(rule: LossRule) -> None:
    """Two denoisers, of which one has losses a hundred times as large, and no balancer."""
    torch.manual_seed(0)
    nets = {"audio": nn.Linear(4, 4), "video": nn.Linear(4, 4)}
    data = {name: torch.randn(16, 4) for name in nets}
    scale = {"audio": 1.0, "video": 10.0}
    parts = []
    for step in range(4):
        losses = {
            name: F.mse_loss(scale[name] * nets[name](x), scale[name] * x)
            for name, x in data.items()
            if name == "audio" or step != 2
        }
        total = rule.weigh(losses)
        assert total.requires_grad
        parts.append([(w * losses[n]).item() for n, w in zip(losses, rule.weights(), strict=False)])
    if isinstance(rule, RunningMagnitude):
        assert parts[-1][0] == pytest.approx(parts[-1][1], rel=1e-5), "the terms are not alike"
    if isinstance(rule, InverseFrequency):
        assert rule.weights()[1] / rule.weights()[0] == pytest.approx(4 / 3)
    with pytest.raises(eq.SetupError, match="no loss 'depth' in the first step"):
        rule.weigh({"depth": losses["audio"]})


def test_bad_settings_are_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"RunningMagnitude\(decay\).*found 1"):
        RunningMagnitude(1)
    with pytest.raises(eq.SetupError, match=r"LossWeighting\(rule\).*found 'kendall'"):
        LossWeighting("kendall")  # type: ignore[arg-type]
