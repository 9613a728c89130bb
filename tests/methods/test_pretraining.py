"""Pre-training is an ensemble at first, and a second run of joint training after."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import equimodal as eq
from equimodal.methods.schedule.pretraining import Pretraining
from support.worlds import World, batch, train, weights


def one_epoch() -> eq.Method:
    return Pretraining(1)


@pytest.mark.parametrize("modalities", [2, 3])
def test_equals_two_runs(modalities: int) -> None:
    """A run of every modality alone, then a run of all with a new optimizer."""
    batches = [batch(12, modalities, seed=seed) for seed in range(3)]
    world, twin = World(modalities), World(modalities)
    method = Pretraining(2)
    balancer = world.balance(method)
    shapes = dict.fromkeys(balancer.names, (8,))
    balancer.make_modules(eq.Shapes(shapes, (3,), torch.device("cpu"), torch.float64))
    for encoder, head, index in zip(
        twin.encoders.values(),
        copy.deepcopy(method.readouts.layers),
        range(modalities),
        strict=True,
    ):
        parameters = [*encoder.parameters(), *head.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)
        for each in batches * 2:
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(encoder(each[index])), each[-1]).backward()
            optimizer.step()
    start = weights(world.model.head)
    for epoch in range(5):
        if epoch == 2:
            assert torch.equal(weights(world.model.head), start), "the head was trained too early"
            torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=0)
        train(balancer, batches)
        balancer.end_epoch()
        if epoch >= 2:
            for *inputs, target in batches:
                twin.optimizer.zero_grad()  # which has not been used before
                nn.functional.cross_entropy(twin.model(*inputs), target).backward()
                twin.optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


def test_is_an_ensemble_at_first() -> None:
    batches = [batch(12, seed=seed) for seed in range(3)]
    world, other = World(), World()
    train(world.balance(Pretraining(1)), batches)
    train(other.balance(eq.Ensemble()), batches)
    assert torch.equal(weights(world.model), weights(other.model))


def test_its_classifiers_are_left_behind() -> None:
    world = World()
    method = Pretraining(1)
    balancer = world.balance(method)
    train(balancer, [batch(12)])
    balancer.end_epoch()
    before = weights(method.readouts)
    train(balancer, [batch(12), batch(12, seed=2)])
    assert torch.equal(weights(method.readouts), before)


def test_composes_with_a_method_that_starts_later() -> None:
    world, plain = World(), World()
    later = world.balance(Pretraining(1), eq.OGM(0.8, window=(1, 9)))
    alone = plain.balance(Pretraining(1))
    equal = []
    for epoch in range(2):
        for seed in range(3):
            train(later, [batch(12, seed=3 * epoch + seed)])
            train(alone, [batch(12, seed=3 * epoch + seed)])
        equal.append(torch.equal(weights(world.model), weights(plain.model)))
        later.end_epoch()
        alone.end_epoch()
    assert equal == [True, False]


def test_is_followed_by_a_method_that_replaces_the_joint_loss_in_later_epochs() -> None:
    """OPM then goes on from the pre-trained encoders, as in a run of its own."""
    batches = [batch(12, seed=seed) for seed in range(3)]
    whole, parts = World(), World()
    balancer = whole.balance(Pretraining(1), eq.OPM(warm_up=1))
    for _ in range(2):
        train(balancer, batches)
        balancer.end_epoch()
    with parts.balance(Pretraining(1)) as first:
        train(first, batches)
        first.end_epoch()
    train(parts.balance(eq.OPM(warm_up=0)), batches)
    assert torch.equal(weights(whole.model), weights(parts.model))


@pytest.mark.parametrize("other", [eq.OPM(warm_up=1), eq.AGM(window=(0, 1)), eq.MultiLoss()])
def test_two_that_replace_the_joint_loss_in_one_epoch_are_refused(other: eq.Method) -> None:
    with pytest.raises(eq.SetupError, match="each wants to replace the joint loss"):
        World().balance(Pretraining(2), other)


def test_missing_modalities_are_left_out() -> None:
    found = []
    for noise in (0.0, 7.0):
        world = World()
        balancer = world.balance(Pretraining())
        audio, visual, target = batch(12)
        here = torch.arange(12) % 3 > 0
        audio = torch.where(here[:, None], audio, audio + noise)
        balancer.backward(
            balancer.loss(world.model(audio, visual), target, present={"audio": here})
        )
        balancer.modulate()
        world.optimizer.step()
        found.append(weights(world.model))
    assert torch.equal(*found)


@pytest.mark.parametrize("epochs", [0, -3])
def test_bad_settings_are_refused(epochs: int) -> None:
    with pytest.raises(eq.SetupError, match=rf"Pretraining\(epochs\).*{epochs}"):
        Pretraining(epochs)
