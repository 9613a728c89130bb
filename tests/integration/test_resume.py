"""A run that is interrupted and resumed equals one that is not, bit for bit."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch

import equimodal as eq
from support.worlds import World, batch, train, weights

METHODS: list[Any] = [
    lambda: [eq.OGM(0.8)],
    lambda: [eq.OGMGE(0.8)],
    lambda: [eq.OGMGE(0.8, noise=eq.ElementNoise(), smoothing=0.7)],
    lambda: [eq.OGMGE(0.8, noise=eq.ElementNoise(), space="update")],
    lambda: [eq.GE()],
    lambda: [eq.Joint()],
    lambda: [eq.MultiLoss()],
    lambda: [eq.Ensemble()],
    lambda: [eq.Unimodal("audio")],
    lambda: [eq.OGM(0.8, smoothing=0.7), eq.GE(), eq.MultiLoss()],
]


def save(world: World, balancer: eq.Balancer) -> bytes:
    """Through a file, as a user would, and loaded as tensors only."""
    buffer = io.BytesIO()
    state = (world.model.state_dict(), world.optimizer.state_dict(), balancer.state_dict())
    torch.save(state, buffer)
    return buffer.getvalue()


def load(content: bytes, methods: list[eq.Method], **settings: Any) -> tuple[World, eq.Balancer]:
    world = World(seed=77, **settings)
    torch.manual_seed(123)
    balancer = world.balance(*methods, scores=eq.Probe() if settings else "auto")
    model, optimizer, state = torch.load(io.BytesIO(content), weights_only=True)
    world.model.load_state_dict(model)
    world.optimizer.load_state_dict(optimizer)
    balancer.load_state_dict(state)
    return world, balancer


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("interrupted_after", [0, 1, 3])
def test_resumed_equals_uninterrupted(make: Any, interrupted_after: int) -> None:
    batches = [batch(seed=seed) for seed in range(6)]
    straight = World()
    balancer = straight.balance(*make())
    first = World()
    interrupted = first.balance(*make())
    for index, each in enumerate(batches):
        train(balancer, [each])
        if index % 2:
            balancer.end_epoch()
        if index < interrupted_after:
            train(interrupted, [each])
            if index % 2:
                interrupted.end_epoch()
    content = save(first, interrupted)
    resumed_world, resumed = load(content, make())
    for index in range(interrupted_after, 6):
        train(resumed, [batches[index]])
        if index % 2:
            resumed.end_epoch()
    assert torch.equal(weights(resumed_world.model), weights(straight.model))
    assert (resumed.steps, resumed.epoch) == (6, 3)
    assert str(resumed.state_dict()) == str(balancer.state_dict())


def test_resumed_between_two_micro_batches() -> None:
    whole = batch(24)
    parts = list(zip(*(tensor.chunk(2) for tensor in whole), strict=True))
    straight, first = World(), World()
    train(straight.balance(eq.OGMGE(0.8)), [whole], micro=2)
    interrupted = first.balance(eq.OGMGE(0.8))
    *inputs, target = parts[0]
    interrupted.backward(interrupted.loss(first.model(*inputs), target) / 2)
    gradients = [p.grad.clone() for p in first.model.parameters() if p.grad is not None]
    world, resumed = load(save(first, interrupted), [eq.OGMGE(0.8)])
    for parameter, gradient in zip(world.model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    *inputs, target = parts[1]
    resumed.backward(resumed.loss(world.model(*inputs), target) / 2)
    resumed.modulate()
    world.optimizer.step()
    assert torch.equal(weights(world.model), weights(straight.model))


def test_probes_are_resumed_too() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8), scores=eq.Probe())
    train(balancer, [batch(), batch(seed=2)])
    other, resumed = load(save(world, balancer), [eq.OGM(0.8)], lr=0.1)
    train(balancer, [batch(seed=3)])
    train(resumed, [batch(seed=3)])
    assert torch.equal(weights(world.model), weights(other.model))


def test_what_was_loaded_does_not_change_with_what_was_saved() -> None:
    world = World()
    balancer = world.balance(eq.OGMGE(0.8, noise=eq.ElementNoise()))
    train(balancer, [batch()])
    state = balancer.state_dict()
    other = World()
    copied = other.balance(eq.OGMGE(0.8, noise=eq.ElementNoise()))
    copied.load_state_dict(state)
    before = copy.deepcopy(copied.state_dict())
    train(balancer, [batch(seed=2)])
    assert str(copied.state_dict()) == str(before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 99}, ["version 99", "install a newer one"]),
        ({"modalities": ["audio", "lips"]}, ["modalities", "lips"]),
        ({"methods": {"ogm": {}}}, ["methods ['ogm']", "['ogm-ge']"]),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: Any, words: list[str]) -> None:
    balancer = World().balance(eq.OGMGE(0.8))
    before = str(balancer.state_dict())
    with pytest.raises(eq.SetupError) as caught:
        balancer.load_state_dict({**balancer.state_dict(), **change})
    for word in words:
        assert word in str(caught.value)
    assert str(balancer.state_dict()) == before
