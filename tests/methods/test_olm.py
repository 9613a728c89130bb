"""OLM against a loop with torch's Adam, and its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equimodal as eq
from equimodal.functional.olm import norm_slope, relative_pace
from equimodal.methods.objective.olm import OLM
from support.classifiers import ByHand
from support.worlds import World, batch, train, weights


def by_hand(hand: ByHand, epochs: list[list[tuple[Tensor, ...]]], rate: float) -> Tensor:
    """The losses as sums over the batch, and two backward passes into the coefficients."""
    count = len(hand.names) + 1
    w = torch.ones(count, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([w], lr=rate)
    initial = torch.ones(count)
    for epoch, batches in enumerate(epochs):
        for *inputs, target in batches:
            alone, joint = hand.logits(inputs)
            logits = [*alone, joint]
            losses = [F.cross_entropy(w[k] * u, target) for k, u in enumerate(logits)]
            if epoch == 0:
                initial = torch.stack(losses).detach()
            adam.zero_grad()
            hand.backward(torch.stack(losses).sum())
            left = torch.stack(losses).detach() / initial
            pace = left / left.mean()
            apart: Any = 0
            for i in range(len(target)):
                norms = [w[k] * u[i].detach().square().sum().sqrt() for k, u in enumerate(logits)]
                mean = sum(n.item() for n in norms) / count
                for k, norm in enumerate(norms):
                    apart = apart + (norm - mean * pace[k].item()).abs()
            (apart / len(target)).backward()
            hand.step()
            adam.step()
    return w.detach()


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2)])
def test_equals_the_hand_written_loop(modalities: int, seed: int) -> None:
    epochs = [[batch(9, modalities, seed=10 * seed + 3 * e + i) for i in range(3)] for e in (0, 1)]
    world, twin = World(modalities, seed=seed), World(modalities, seed=seed)
    method = OLM(rate=0.05)
    balancer = world.balance(method)
    for batches in epochs:
        train(balancer, batches)
        balancer.end_epoch()
    hand = ByHand(twin)
    expected = by_hand(hand, epochs, 0.05)
    assert (expected - 1).abs().min() > 0.01, "a coefficient has not moved"
    torch.testing.assert_close(method.weights, expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(weights(method.readouts), weights(hand.heads), rtol=1e-7, atol=1e-9)


def test_the_slope_is_the_derivative_with_the_mean_held_fixed() -> None:
    norms = torch.rand(3, 5, dtype=torch.float64) + 0.1
    w = torch.tensor([1.0, 0.7, 1.3], dtype=torch.float64, requires_grad=True)
    pace = torch.tensor([0.5, 1.2, 1.3], dtype=torch.float64)
    mean = (w.detach()[:, None] * norms).mean(dim=0)
    (w[:, None] * norms - pace[:, None] * mean).abs().sum().backward()
    torch.testing.assert_close(norm_slope(norms, w.detach(), pace), w.grad)


def test_a_modality_that_is_absent_leaves_the_others_to_be_compared() -> None:
    losses = torch.tensor([1.0, math.nan, 3.0])
    assert relative_pace(losses, torch.tensor([2.0, 1.0, 2.0])).tolist() == [0.5, 1.0, 1.5]
    norms = torch.rand(3, 4)
    there = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
    found = norm_slope(norms, torch.ones(3), torch.ones(3), there)
    two = norm_slope(norms[[0, 2]], torch.ones(2), torch.ones(2))
    torch.testing.assert_close(found[[0, 2]], two)
    assert found[1] == 0


def test_a_step_without_a_modality_runs_through() -> None:
    world = World()
    method = OLM()
    balancer = world.balance(method)
    *inputs, target = batch(8)
    absent = {"audio": torch.zeros(8, dtype=torch.bool)}
    for _ in range(2):
        balancer.backward(balancer.loss(world.model(*inputs), target, present=absent))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
        balancer.end_epoch()
    assert method.weights.isfinite().all()
    assert weights(world.model).isfinite().all()


def test_bad_settings_are_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"OLM\(rate\).*found -1"):
        OLM(-1)
