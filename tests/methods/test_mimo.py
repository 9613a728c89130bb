"""MIMO, as we read its abstract, against automatic differentiation of the formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equimodal as eq
from equimodal.functional.mimo import smooth_maximum
from equimodal.methods.objective.mimo import MIMO
from support.classifiers import ByHand
from support.worlds import World, batch, train, weights


def slow_maximum(losses: list[Tensor], smoothing: float) -> Tensor:
    mean = sum(torch.exp(each / smoothing) for each in losses) / len(losses)
    return smoothing * torch.log(torch.as_tensor(mean))


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("weight", "smoothing"), [(1.0, 0.1), (0.5, 2.0)])
def test_equals_the_hand_written_loop(modalities: int, weight: float, smoothing: float) -> None:
    batches = [batch(size, modalities, seed=size) for size in (20, 20, 7)]
    by_hand, world = World(modalities), World(modalities)
    hand = ByHand(by_hand)
    balancer = world.balance(MIMO(weight, smoothing))
    for each in batches:
        *alone, joint = hand.losses(each)
        expected = joint + weight * slow_maximum(alone, smoothing)
        found = balancer.loss(world.model(*each[:-1]), each[-1])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        hand.backward(expected)
        hand.step()
        train(balancer, [each])
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.05, 1.0, 50.0])
def test_the_smooth_maximum_equals_its_slow_twin(smoothing: float) -> None:
    losses = np.random.default_rng(0).uniform(0, 4, size=(5, 3))
    expected = [
        smoothing * math.log(sum(math.exp(x / smoothing) for x in row) / 3) for row in losses
    ]
    np.testing.assert_allclose(smooth_maximum(torch.tensor(losses), smoothing), expected, rtol=1e-9)


def test_the_smooth_maximum_lies_between_mean_and_maximum() -> None:
    losses = torch.tensor([0.3, 2.0, 1.1], dtype=torch.float64)
    values = [smooth_maximum(losses, mu).item() for mu in (1e3, 10, 1, 0.1, 1e-3)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(losses.mean().item(), abs=1e-2)
    assert values[-1] == pytest.approx(losses.max().item(), abs=1e-2)


def test_huge_losses_do_not_overflow() -> None:
    assert smooth_maximum(torch.tensor([1e4, 1.0]), 0.1).item() == pytest.approx(1e4, rel=1e-4)


def test_a_missing_modality_counts_by_the_samples_that_have_it() -> None:
    *inputs, target = batch(12)
    present = torch.arange(12) < 5
    world = World()
    loss = world.balance(MIMO()).loss(world.model(*inputs), target, present={"visual": present})
    alone, joint = ByHand(World()).logits(inputs)
    losses = [F.cross_entropy(alone[0], target), F.cross_entropy(alone[1][:5], target[:5])]
    torch.testing.assert_close(loss, F.cross_entropy(joint, target) + slow_maximum(losses, 0.1))


def test_three_modalities_reduce_to_two_where_the_third_is_absent() -> None:
    *inputs, target = batch(12, 3)
    world = World(3)
    balancer = world.balance(MIMO())
    absent = {"text": torch.zeros(12, dtype=torch.bool)}
    loss = balancer.loss(world.model(*inputs), target, present=absent)
    audio, visual, _, joint = ByHand(World(3)).losses((*inputs, target))
    torch.testing.assert_close(loss, joint + slow_maximum([audio, visual], 0.1))
    balancer.backward(loss)
    assert all(p.grad is None or p.grad.isfinite().all() for p in world.model.parameters())


def test_nobody_at_all_leaves_the_joint_loss() -> None:
    *inputs, target = batch(12)
    world = World()
    nobody = dict.fromkeys(world.encoders, torch.zeros(12, dtype=torch.bool))
    loss = world.balance(MIMO()).loss(world.model(*inputs), target, present=nobody)
    torch.testing.assert_close(loss, F.cross_entropy(world.model(*inputs), target))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MIMO(weight=-1), ["MIMO(weight)", "-1"]),
        (lambda: MIMO(smoothing=0), ["MIMO(smoothing)", "0"]),
        (lambda: MIMO(smoothing=math.inf), ["MIMO(smoothing)", "inf"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
