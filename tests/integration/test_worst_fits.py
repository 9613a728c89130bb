"""The methods that fit worst run in the loop of the design, without a trainer of their own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.testing import spawn
from support import worst_fits
from support.worlds import World, batch, weights

EXACT = [m for m in worst_fits.ALL if m.capabilities.accumulation == "exact"]


def loaders(part: slice = slice(None), size: int = 8) -> tuple[DataLoader[Any], DataLoader[Any]]:
    train = TensorDataset(*(tensor[part] for tensor in batch(48)))
    return DataLoader(train, size), DataLoader(TensorDataset(*batch(24, seed=2)), 8)


def run(
    kind: type[eq.Method], epochs: int = 3, micro: int = 1, size: int = 8
) -> tuple[World, eq.Balancer]:
    world = World()
    train, val = loaders()
    balancer = world.balance(kind(), train_loader=train, val_loader=val)
    epoch_loop(world, world.model, balancer, loaders(size=size)[0], epochs, micro)
    return world, balancer


def epoch_loop(
    world: World, model: Any, balancer: eq.Balancer, train: Any, epochs: int, micro: int = 1
) -> None:
    for _ in range(epochs):
        for count, (*inputs, target) in enumerate(balancer.batches(train), 1):
            balancer.backward(balancer.loss(model(*inputs), target) / micro)
            if count % micro == 0:
                balancer.modulate()
                world.optimizer.step()
                world.optimizer.zero_grad()
        balancer.end_epoch()


@pytest.mark.parametrize("kind", worst_fits.ALL)
def test_runs_changes_training_and_predicts(kind: type[eq.Method]) -> None:
    world, balancer = run(kind)
    plain, _ = run(eq.Joint)
    assert not torch.equal(weights(world.model), weights(plain.model))
    *inputs, target = batch(48)
    logits = balancer.predict(*inputs)
    assert logits.shape == (48, 3)
    assert (logits.argmax(1) == target).float().mean() > 0.5


@pytest.mark.parametrize("kind", EXACT)
def test_micro_batches_give_the_step_of_the_large_batch(kind: type[eq.Method]) -> None:
    epochs = 1 if kind is worst_fits.Resamples else 2
    large, _ = run(kind, epochs=epochs, size=16)
    small, _ = run(kind, epochs=epochs, size=4, micro=4)
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-9, atol=1e-9)


def on_rank(rank: int, name: str) -> tuple[Tensor, dict[str, Any]]:
    kind = getattr(worst_fits, name)
    world = World()
    ours, val = loaders(slice(rank, None, 2))
    everything, _ = loaders()
    ddp = DistributedDataParallel(world.model)
    balancer = world.balance(kind(), model=ddp, train_loader=everything, val_loader=val)
    driven = everything if kind is worst_fits.Resamples else ours
    epoch_loop(world, ddp, balancer, driven, epochs=3)
    return weights(world.model), copy.deepcopy(balancer.state_dict()["methods"])


@pytest.mark.parametrize("kind", worst_fits.ALL)
def test_two_ranks_stay_bit_identical(kind: type[eq.Method]) -> None:
    (first, state), (second, other) = spawn(on_rank, kind.__name__)
    assert torch.equal(first, second)
    assert str(state) == str(other)


@pytest.mark.parametrize("kind", worst_fits.ALL)
def test_a_state_restored_between_epochs_goes_on_alike(kind: type[eq.Method]) -> None:
    world, _ = run(kind, epochs=3)
    half, balancer = run(kind, epochs=2)
    saved = copy.deepcopy((half.model.state_dict(), half.optimizer.state_dict()))
    state = copy.deepcopy(balancer.state_dict())
    fresh = World(seed=5)
    fresh.model.load_state_dict(saved[0])
    fresh.optimizer.load_state_dict(saved[1])
    train, val = loaders()
    resumed = fresh.balance(kind(), train_loader=train, val_loader=val)
    resumed.load_state_dict(state)
    epoch_loop(fresh, fresh.model, resumed, train, epochs=1)
    assert torch.equal(weights(fresh.model), weights(world.model))
