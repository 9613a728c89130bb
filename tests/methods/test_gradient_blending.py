"""Gradient-Blending against copies that are trained by hand, and its estimator in plain Python."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from equimodal.functional.gradient_blending import blending_weights
from equimodal.methods.objective.blending_schedule import OfflineBlending, OnlineBlending
from equimodal.methods.objective.gradient_blending import GradientBlending
from support.classifiers import ByHand
from support.worlds import World, batch, train, weights

FLOOR = 1e-4


def every_epoch() -> eq.Method:
    return GradientBlending(OnlineBlending(epochs=1))


def slow_weights(*losses: Sequence[float], floor: float = FLOOR) -> list[float]:
    worth = []
    for train_0, held_0, train_1, held_1 in zip(*losses, strict=True):
        gain = held_0 - held_1
        overfitting = (held_1 - train_1) - (held_0 - train_0)
        worth.append(max(gain, 0) / max(abs(overfitting), floor) ** 2)
    if sum(worth) == 0:
        return [1 / len(worth)] * len(worth)
    return [each / sum(worth) for each in worth]


def data(modalities: int = 2, size: int = 30, seed: int = 3) -> TensorDataset:
    return TensorDataset(*batch(size, modalities, seed=seed))


def blended(
    modalities: int, method: eq.Method, train_size: int = 8, held_size: int = 7, **settings: Any
) -> tuple[World, eq.Balancer, DataLoader[Any]]:
    """Neither size divides its data, so that the last batch is a partial one."""
    world = World(modalities)
    loader = DataLoader(data(modalities), train_size)
    held = settings.pop("held", data(modalities, 20, seed=9))
    balancer = world.balance(
        method, train_loader=loader, val_loader=DataLoader(held, held_size), **settings
    )
    return world, balancer, loader


# ---------------------------------------------------------------- the estimator


@pytest.mark.parametrize(("heads", "seed"), [(3, 0), (4, 1), (5, 2)])
def test_the_estimator_equals_its_slow_twin(heads: int, seed: int) -> None:
    losses = np.random.default_rng(seed).uniform(0.1, 3, size=(4, heads))
    found = blending_weights(*map(torch.tensor, losses), floor=FLOOR)
    np.testing.assert_allclose(found, slow_weights(*losses.tolist()), rtol=1e-12)
    assert found.sum().item() == pytest.approx(1)


def test_a_head_that_loses_gets_nothing_and_its_loss_is_not_hidden_by_a_sign() -> None:
    before = torch.ones(3, dtype=torch.float64)
    held_out = torch.tensor([0.5, 1.5, 0.9], dtype=torch.float64)  # the second got worse
    found = blending_weights(before, before, held_out - 0.2, held_out)
    np.testing.assert_allclose(found, [5 / 6, 0, 1 / 6], rtol=1e-12)


def test_without_any_gain_all_weigh_the_same() -> None:
    before = torch.ones(3)
    found = blending_weights(before, before, before, before + 1)
    torch.testing.assert_close(found, torch.full((3,), 1 / 3))


def test_no_overfitting_at_all_is_bounded_by_the_floor() -> None:
    before, after = torch.ones(2, dtype=torch.float64), torch.tensor([0.5, 0.5]).double()
    found = blending_weights(
        before, before, after - torch.tensor([0.0, 0.2], dtype=torch.float64), after, floor=0.1
    )
    np.testing.assert_allclose(found, [0.8, 0.2], rtol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", range(4))
def test_a_loss_that_is_not_finite_gets_nothing(bad: float, which: int) -> None:
    losses = [torch.tensor([value, value]) for value in (1.0, 1.0, 0.7, 0.8)]
    losses[which][0] = bad
    torch.testing.assert_close(blending_weights(*losses), torch.tensor([0.0, 1.0]))


def test_more_modalities_reduce_to_fewer_where_one_gains_nothing() -> None:
    losses = torch.tensor([[1.0, 1.2, 1.1], [1.3, 1.2, 1.4], [0.5, 0.7, 0.6], [1.0, 1.0, 1.1]])
    stuck = torch.tensor([[1.0], [1.0], [0.9], [1.1]])
    more = blending_weights(*torch.cat([losses, stuck], dim=1))
    torch.testing.assert_close(more[:3], blending_weights(*losses))


# ---------------------------------------------------------------- against a loop by hand


def mean_losses(hand: ByHand, dataset: TensorDataset) -> list[float]:
    """One sample at a time."""
    with torch.no_grad():
        each = [[float(loss) for loss in hand.losses(s)] for s in DataLoader(dataset, 1)]
    return [sum(column) / len(each) for column in zip(*each, strict=True)]


def estimate_by_hand(
    hand: ByHand, loader: DataLoader[Any], held: TensorDataset, epochs: int
) -> list[float]:
    dataset: Any = loader.dataset
    before = [mean_losses(hand, dataset), mean_losses(hand, held)]
    after: list[list[float]] = [[], []]
    for head in range(len(before[0])):
        trial = hand.copied()
        for _ in range(epochs):
            for each in loader:
                trial.backward(trial.losses(each)[head])
                trial.step()
        after[0].append(mean_losses(trial, dataset)[head])
        after[1].append(mean_losses(trial, held)[head])
    return slow_weights(*before, *after)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("length", "total"), [(1, 3), (2, 3)])
def test_online_equals_the_loop_by_hand(modalities: int, length: int, total: int) -> None:
    by_hand = World(modalities)
    hand = ByHand(by_hand)
    held = data(modalities, 20, seed=9)
    method = GradientBlending(OnlineBlending(length))
    world, balancer, loader = blended(modalities, method)
    weights_by_hand = [1 / (modalities + 1)] * (modalities + 1)
    for epoch in range(total):
        for each in loader:
            losses = hand.losses(each)
            hand.backward(sum(w * loss for w, loss in zip(weights_by_hand, losses, strict=True)))
            hand.step()
        if (epoch + 1) % length == 0:
            weights_by_hand = estimate_by_hand(hand, loader, held, length)
        train(balancer, list(loader))
        balancer.end_epoch()
        np.testing.assert_allclose(method.weights, weights_by_hand, rtol=1e-6)
    assert len({round(w, 6) for w in weights_by_hand}) > 1
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-6, atol=1e-9)


def test_offline_estimates_once() -> None:
    method = GradientBlending(OfflineBlending(epochs=2, after=2))
    by_hand = World()
    hand = ByHand(by_hand)
    _, balancer, loader = blended(2, method)
    found = []
    for _ in range(4):
        train(balancer, list(loader))
        balancer.end_epoch()
        found.append(method.weights.clone())
    for _ in range(2):
        for each in loader:
            hand.backward(sum(hand.losses(each)) / 3)
            hand.step()
    expected = estimate_by_hand(hand, loader, data(2, 20, seed=9), epochs=2)
    torch.testing.assert_close(found[0], torch.full((3,), 1 / 3).double())
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)
    assert torch.equal(found[1], found[2])
    assert torch.equal(found[1], found[3])


def test_published_weights_are_a_multi_loss() -> None:
    """Those for RGB and audio on Kinetics, with an R3D-50."""
    published = {"audio": 0.014, "visual": 0.630}
    by_hand, world = World(), World()
    hand = ByHand(by_hand)
    batches = [batch(seed=seed) for seed in range(4)]
    train(world.balance(eq.MultiLoss(published, joint=0.356)), batches)
    for each in batches:
        audio, visual, joint = hand.losses(each)
        hand.backward(0.014 * audio + 0.630 * visual + 0.356 * joint)
        hand.step()
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- what public code gets wrong


def weights_after(**settings: Any) -> Tensor:
    method = GradientBlending(OnlineBlending(1))
    _, balancer, loader = blended(2, method, **settings)
    train(balancer, list(loader))
    balancer.end_epoch()
    return method.weights


@pytest.mark.parametrize("held_size", [1, 6, 20, 50])
def test_losses_are_means_over_samples_whatever_the_batches(held_size: int) -> None:
    torch.testing.assert_close(
        weights_after(held_size=held_size), weights_after(), rtol=1e-9, atol=0
    )


def test_the_size_of_the_held_out_data_does_not_matter() -> None:
    held = data(2, 20, seed=9)
    doubled = weights_after(held=ConcatDataset([held, held, held]))
    torch.testing.assert_close(doubled, weights_after(), rtol=1e-9, atol=0)


def test_an_estimate_leaves_model_and_optimizers_as_they_were() -> None:
    method = GradientBlending(OnlineBlending(1))
    world, balancer, loader = blended(2, method)
    train(balancer, list(loader))
    world.model.encoders["audio"].eval()
    before = copy.deepcopy(
        (world.model.state_dict(), world.optimizer.state_dict(), method.readouts.state_dict())
    )
    own = copy.deepcopy(balancer.state_dict()["own_optimizer"])
    modes = [module.training for module in world.model.modules()]
    balancer.end_epoch()
    after = (world.model.state_dict(), world.optimizer.state_dict(), method.readouts.state_dict())
    assert str(after) == str(before)
    assert str(balancer.state_dict()["own_optimizer"]) == str(own)
    assert [module.training for module in world.model.modules()] == modes
    assert all(p.grad is None for p in world.model.parameters())


def test_held_out_data_is_asked_for() -> None:
    world = World()
    loader = DataLoader(data(), 8)
    with pytest.raises(eq.SetupError, match="never the test set"):
        world.balance(GradientBlending(), train_loader=loader)
    with pytest.raises(eq.SetupError, match="train_loader="):
        world.balance(GradientBlending(), val_loader=loader)


# ---------------------------------------------------------------- edges


def test_ignored_targets_do_not_count() -> None:
    held = batch(20, seed=9)
    ignored = held[-1].clone()
    ignored[10:] = -100
    part = TensorDataset(*(tensor[:10] for tensor in held))
    whole = TensorDataset(*held[:-1], ignored)
    torch.testing.assert_close(
        weights_after(held=whole), weights_after(held=part), rtol=1e-9, atol=0
    )


class Regressor(nn.Module):
    """One number per sample, squeezed by the user or not."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.shape = testing.SmallModel(2, 1).double(), shape

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs).view(-1, *self.shape)


def test_one_number_per_sample_is_weighed_as_a_column_is() -> None:
    """Passes between epochs see what the head returned, and the criterion wants the user's form."""
    found = []
    for shape in ((), (1,)):
        model = Regressor(shape)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        given = [batch(size, seed=size)[:2] for size in (20, 12)]
        loaders = [DataLoader(TensorDataset(*x, x[0].sum(1).view(-1, *shape)), 8) for x in given]
        method = every_epoch()
        balancer = eq.Balancer(
            method, model, dict(model.net.encoders.items()), model.net.head, optimizer,
            criterion=nn.L1Loss(), train_loader=loaders[0], val_loader=loaders[1],
        )  # fmt: skip
        train(balancer, list(loaders[0]))
        balancer.end_epoch()
        found.append(method.weights)
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_a_missing_modality_trains_on_the_samples_that_have_it() -> None:
    *inputs, target = batch(12)
    present = torch.arange(12) < 5
    hand = ByHand(World())
    method = GradientBlending()
    world, balancer, _ = blended(2, method)
    balancer.backward(balancer.loss(world.model(*inputs), target, present={"visual": present}))
    alone, joint = hand.logits(inputs)
    loss = torch.nn.functional.cross_entropy
    parts = [loss(alone[0], target), loss(alone[1][:5], target[:5]) * 5 / 12, loss(joint, target)]
    hand.backward(torch.stack(parts).mean())
    for ours, theirs in zip(method.readouts.layers, hand.heads, strict=True):
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GradientBlending(floor=0.0), ["GradientBlending(floor)", "0.0"]),
        (lambda: GradientBlending(floor=math.nan), ["floor", "nan"]),
        (lambda: OnlineBlending(0), ["OnlineBlending(epochs)", "0"]),
        (lambda: OfflineBlending(epochs=0), ["OfflineBlending(epochs)", "0"]),
        (lambda: OfflineBlending(after=0), ["OfflineBlending(after)", "0"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
