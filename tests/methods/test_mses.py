"""MSES against a training by hand, and what stops, stays and goes back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.functional.mses import patience_spent
from equimodal.methods.schedule.mses import MSES
from support.slow import softmax
from support.worlds import World, batch, train, weights


def impatient() -> eq.Method:
    return MSES(patience=1, restore=True, smoothing=0.3)


def held_out(modalities: int = 2, size: int = 20) -> DataLoader[Any]:
    """A last batch that is not full, so that means of batches are not the mean of samples."""
    return DataLoader(TensorDataset(*batch(size, modalities, seed=9)), 8)


def made(world: World, method: MSES, **settings: Any) -> eq.Balancer:
    balancer = world.balance(method, **{"val_loader": held_out(world.modalities), **settings})
    shapes = dict.fromkeys(balancer.names, (8,))
    balancer.make_modules(eq.Shapes(shapes, (3,), torch.device("cpu"), torch.float64))
    return balancer


# ---------------------------------------------------------------------- a training by hand


def slow_losses(world: World, heads: nn.ModuleList) -> list[float]:
    """Mean over all held-out samples, one at a time."""
    *inputs, target = batch(20, world.modalities, seed=9)
    found = []
    for encoder, head, x in zip(world.encoders.values(), heads, inputs, strict=True):
        with torch.no_grad():
            logits = head(encoder(x)).numpy()
        each = [-math.log(softmax(u)[y]) for u, y in zip(logits, target.tolist(), strict=True)]
        found.append(sum(each) / len(each))
    return found


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.6])
def test_equals_the_hand_written_training(modalities: int, restore: bool, smoothing: float) -> None:
    # Labels of the training data are shuffled for some epochs: held-out losses rise and fall.
    data = [batch(16, modalities, seed=seed) for seed in range(9)]
    data = [(*d[:-1], d[-1] if e < 3 else (d[-1] + 1) % 3) for e, d in enumerate(data)]
    world, twin = World(modalities), World(modalities)
    method = MSES(2, unimodal=0.5, smoothing=smoothing, restore=restore)
    balancer = made(world, method)
    heads = copy.deepcopy(method.readouts.layers)
    owns = torch.optim.SGD(heads.parameters(), lr=world.lr, momentum=0.9, weight_decay=1e-2)
    encoders = dict(twin.encoders)
    best, waited = [math.inf] * modalities, [0] * modalities
    previous: list[float] = []
    kept: dict[int, Any] = {}
    off: set[int] = set()
    for *inputs, target in data:
        train(balancer, [(*inputs, target)])
        balancer.end_epoch()
        features = [e(x) for e, x in zip(encoders.values(), inputs, strict=True)]
        loss = nn.functional.cross_entropy(twin.model.head(torch.cat(features, 1)), target)
        for m, feature in enumerate(features):
            if m not in off:
                loss = loss + 0.5 * nn.functional.cross_entropy(heads[m](feature), target)
        twin.optimizer.zero_grad()
        owns.zero_grad()
        loss.backward()
        for m, encoder in enumerate(encoders.values()):
            if m in off:
                for parameter in encoder.parameters():
                    parameter.grad = None
        twin.optimizer.step()
        owns.step()
        now = slow_losses(twin, heads)
        past = previous or now
        compared = [smoothing * p + (1 - smoothing) * n for p, n in zip(past, now, strict=True)]
        previous = now
        for m, (encoder, value) in enumerate(zip(encoders.values(), compared, strict=True)):
            if m in off:
                continue
            if value < best[m]:
                best[m], waited[m] = value, 0
                kept[m] = copy.deepcopy((encoder.state_dict(), heads[m].state_dict()))
                continue
            waited[m] += 1
            if waited[m] == 2:
                off.add(m)
                if restore:
                    encoder.load_state_dict(kept[m][0])
                    heads[m].load_state_dict(kept[m][1])
        assert method.stopped == tuple(n for m, n in enumerate(balancer.names) if m in off)
    assert off, "nothing stopped: the test shows nothing"
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(weights(method.readouts), weights(heads), rtol=1e-8, atol=1e-11)


# ---------------------------------------------------------------------- the rule


def test_patience_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    history = rng.normal(size=(30, 4))
    history[3, 1] = math.nan
    best, waited = torch.full((4,), math.inf).double(), torch.zeros(4, dtype=torch.int64)
    for epoch in range(30):
        best, waited, spent = patience_spent(best, waited, torch.from_numpy(history[epoch]), 5)
        for m in range(4):
            past = [x for x in history[: epoch + 1, m] if not math.isnan(x)]
            since = epoch - int(np.nanargmin(history[: epoch + 1, m]))
            assert float(best[m]) == min(past)
            assert int(waited[m]) == since
            assert bool(spent[m]) == (since >= 5)


# ---------------------------------------------------------------------- what stops


def stopped(restore: bool) -> tuple[World, eq.Balancer, MSES]:
    """Both modalities stop: the training labels are wrong from the second epoch on."""
    world, method = World(), MSES(1, restore=restore)
    balancer = made(world, method)
    train(balancer, [batch(16)])
    balancer.end_epoch()
    while len(method.stopped) < 2:
        *inputs, target = batch(16)
        train(balancer, [(*inputs, (target + 1) % 3)])
        balancer.end_epoch()
    return world, balancer, method


def test_what_has_stopped_stays_and_the_rest_is_trained() -> None:
    """Weight decay and momentum do not move it either."""
    world, balancer, method = stopped(restore=False)
    before = {name: weights(encoder) for name, encoder in world.encoders.items()}
    readouts, head = weights(method.readouts), weights(world.model.head)
    train(balancer, [batch(16)])
    balancer.end_epoch()
    assert method.stopped == ("audio", "visual")
    for name, encoder in world.encoders.items():
        assert torch.equal(weights(encoder), before[name])
    assert torch.equal(weights(method.readouts), readouts)
    assert not torch.equal(weights(world.model.head), head)


def test_restoring_brings_back_running_statistics_too() -> None:
    world = World()
    for encoder in world.model.encoders.values():
        assert isinstance(encoder, nn.Sequential)
        encoder.append(nn.BatchNorm1d(8, dtype=torch.float64))
    world.optimizer = torch.optim.SGD(world.model.parameters(), lr=0.1)
    method = MSES(1, restore=True)
    balancer = made(world, method)
    train(balancer, [batch(16)])
    balancer.end_epoch()
    best = {n: copy.deepcopy(e.state_dict()) for n, e in world.encoders.items()}
    while not method.stopped:
        best = {n: copy.deepcopy(e.state_dict()) for n, e in world.encoders.items()}
        *inputs, target = batch(16)
        train(balancer, [(*inputs, (target + 1) % 3)])
        balancer.end_epoch()
    for name in method.stopped:
        for key, value in world.encoders[name].state_dict().items():
            assert torch.equal(value, best[name][key]), key
    assert method.get_extra_state()["kept"].keys() == set(balancer.names) - set(method.stopped)


def test_a_batch_without_a_modality_stays_finite() -> None:
    world, method = World(), MSES()
    balancer = made(world, method)
    *inputs, target = batch(12)
    nobody = torch.zeros(12, dtype=torch.bool)
    balancer.backward(balancer.loss(world.model(*inputs), target, present={"audio": nobody}))
    balancer.modulate()
    world.optimizer.step()
    balancer.end_epoch()
    assert weights(world.model).isfinite().all()
    assert weights(method.readouts).isfinite().all()


def test_other_losses_than_cross_entropy() -> None:
    world, method = World(), MSES(1)
    *inputs, _ = batch(16)
    target = torch.rand(16, 3, dtype=torch.float64)
    loader = DataLoader(TensorDataset(*inputs, target), 8)
    balancer = made(world, method, val_loader=loader, criterion=nn.functional.mse_loss)
    train(balancer, [(*inputs, target)])
    balancer.end_epoch()
    assert method.best.isfinite().all()


# ---------------------------------------------------------------------- refusals


def test_held_out_data_must_be_given_and_come_again() -> None:
    with pytest.raises(eq.SetupError, match=r"needs held-out data.*never the test set"):
        World().balance(MSES())
    balancer = made(World(), MSES(), val_loader=iter(held_out()))
    train(balancer, [batch(16)])
    balancer.end_epoch()
    train(balancer, [batch(16)])
    with pytest.raises(eq.SetupError, match="passed over again"):
        balancer.end_epoch()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MSES(0), ["patience", "0"]),
        (lambda: MSES(unimodal=0), ["unimodal", "0"]),
        (lambda: MSES(smoothing=1), ["smoothing", "1"]),
        (lambda: MSES(smoothing=math.nan), ["smoothing", "nan"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
