"""MLB is a composition: multi-loss, and a two-sided OGM that is judged by its classifiers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import equimodal as eq
from support import slow
from support.classifiers import ByHand
from support.worlds import World, batch, train, weights


def mlb(
    world: World, alpha: float = 0.8, coefficient: eq.TwoSided | None = None, **settings: Any
) -> eq.Balancer:
    """As its card says."""
    losses = eq.MultiLoss()
    ogm = eq.OGM(alpha, coefficient=coefficient or eq.TwoSided(beta=2.0), parameters="all")
    return world.balance(losses, ogm, scores=losses.readouts, **settings)


def released(ratio: float, alpha: float, beta: float) -> float:
    """The largest coefficient is beta for those behind, 2 for the leader."""
    lag = 1 / ratio
    return 1 + ((beta if lag > 1 else 2) - 1) * math.tanh(alpha * (lag - 1))


def hand_written(
    hand: ByHand, batches: Sequence[tuple[Tensor, ...]], coefficient: Callable[[float], float]
) -> list[list[float]]:
    history = []
    for each in batches:
        *inputs, target = each
        alone = hand.logits(inputs)[0]
        scores = [slow.score(u.detach().numpy(), target.tolist()) for u in alone]
        hand.backward(torch.stack(hand.losses(each)).sum())
        ks = [coefficient(ratio) for ratio in slow.ratios(scores)]
        history.append(ks)
        for k, encoder in zip(ks, hand.model.encoders.values(), strict=True):
            for parameter in encoder.parameters():
                parameter.grad *= k
        hand.step()
    return history


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(
    ("coefficient", "twin"),
    [
        (eq.TwoSided(beta=2.0), lambda ratio: slow.two_sided(ratio, 0.8, 2.0)),
        (eq.TwoSided(beta=3.0), lambda ratio: slow.two_sided(ratio, 0.8, 3.0)),
        (eq.TwoSided(beta=3.0, damping=1.0), lambda ratio: released(ratio, 0.8, 3.0)),
    ],
    ids=["default", "beta", "released"],
)
def test_equals_the_hand_written_loop(modalities: int, coefficient: Any, twin: Any) -> None:
    batches = [batch(size, modalities, seed=size) for size in (20, 21, 22, 7)]
    by_hand, world = World(modalities), World(modalities)
    history = hand_written(ByHand(by_hand), batches, twin)
    train(mlb(world, coefficient=coefficient), batches)
    assert any(k > 1 for ks in history for k in ks), "somebody is sped up"
    assert any(k < 1 for ks in history for k in ks), "somebody is slowed down"
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


def test_scores_of_the_head_would_be_another_method() -> None:
    batches = [batch(seed=seed) for seed in range(4)]
    by_head, world = World(), World()
    ogm = eq.OGM(0.8, coefficient=eq.TwoSided(), parameters="all")
    train(by_head.balance(eq.MultiLoss(), ogm), batches)
    train(mlb(world), batches)
    assert not torch.allclose(weights(world.model), weights(by_head.model), rtol=1e-6)


def test_alpha_zero_is_multi_loss() -> None:
    batches = [batch(seed=seed) for seed in range(3)]
    plain, world = World(), World()
    train(plain.balance(eq.MultiLoss()), batches)
    train(mlb(world, alpha=0.0), batches)
    assert torch.equal(weights(world.model), weights(plain.model))


def coefficients_by_hand(
    world: World, inputs: Sequence[Tensor], target: Tensor, kept: Sequence[int]
) -> list[float]:
    """From the first so many samples of each modality, per sample."""
    alone = ByHand(world).logits(inputs)[0]
    scores = [
        slow.score(u[:n].detach().numpy(), target[:n].tolist()) / n
        for u, n in zip(alone, kept, strict=False)
    ]
    return [slow.two_sided(ratio, 0.8, 2.0) for ratio in slow.ratios(scores)]


def test_missing_and_ignored_samples_do_not_count() -> None:
    *inputs, target = batch(12)
    target = target.clone()
    target[10:] = -100
    world = World()
    balancer = mlb(world, track_every=1)
    present = {"visual": torch.arange(12) < 5}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
    balancer.modulate()
    expected = coefficients_by_hand(World(), inputs, target, (10, 5))
    metrics = balancer.metrics()
    found = [metrics[f"coefficient/{name}"] for name in balancer.names]
    assert found == pytest.approx(expected)


def test_three_modalities_reduce_to_two_where_the_third_is_absent() -> None:
    *inputs, target = batch(12, 3)
    world = World(3)
    balancer = mlb(world, track_every=1)
    absent = {"text": torch.zeros(12, dtype=torch.bool)}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=absent))
    balancer.modulate()
    metrics = balancer.metrics()
    found = [metrics[f"coefficient/{name}"] for name in balancer.names]
    assert found == pytest.approx([*coefficients_by_hand(World(3), inputs, target, (12, 12)), 1.0])


def test_micro_batches_are_judged_together() -> None:
    whole = batch(24)
    large, small = World(), World()
    train(mlb(large), [whole])
    train(mlb(small), [whole], micro=4)
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-9, atol=1e-12)


def test_resumed_equals_uninterrupted() -> None:
    batches = [batch(seed=seed) for seed in range(4)]
    straight, first, second = World(), World(), World(seed=7)
    train(mlb(straight), batches)
    interrupted = mlb(first)
    train(interrupted, batches[:2])
    resumed = mlb(second)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    resumed.load_state_dict(interrupted.state_dict())
    train(resumed, batches[2:])
    assert torch.equal(weights(second.model), weights(straight.model))


def test_unimodal_logits_are_those_of_the_classifiers() -> None:
    world = World()
    balancer = mlb(world)
    train(balancer, [batch()])
    *inputs, _ = batch(seed=2)
    with torch.no_grad():
        found = balancer.unimodal_logits(*inputs)
        losses = next(m for m in balancer.methods if isinstance(m, eq.MultiLoss))
        features = zip(world.encoders.items(), inputs, strict=True)
        expected = losses.readouts({name: encoder(x) for (name, encoder), x in features})
    for name in balancer.names:
        assert torch.equal(found[name], expected[name])
