"""Objectives that judge a batch, or pass over data: two ranks with half of it equal one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.methods.objective.alignment import LearnedWeight
from equimodal.methods.objective.blending_schedule import OnlineBlending
from equimodal.methods.objective.gradient_blending import GradientBlending
from equimodal.methods.objective.lfm import LFM
from equimodal.methods.objective.mimo import MIMO
from equimodal.methods.objective.pmr import PMR
from equimodal.methods.objective.stimulation import PrototypicalEntropy
from equimodal.testing import spawn
from support.worlds import World, batch, train, weights

METHODS: Mapping[str, Callable[[], eq.Method]] = {
    "gradient-blending": lambda: GradientBlending(OnlineBlending(1)),
    "lfm": lambda: LFM(LearnedWeight(0.05, 0.5)),
    "mimo": lambda: MIMO(smoothing=0.3),
    "pmr": lambda: PMR(entropy=PrototypicalEntropy(0.2, until=9)),
}
BATCH = 12


def run(name: str, part: slice, share: int, distributed: bool) -> tuple[Tensor, str]:
    """Train for three epochs on a part of every batch, with that part as the data to pass over."""
    world = World()
    model = DistributedDataParallel(world.model) if distributed else world.model
    loader = DataLoader(TensorDataset(*(x[part] for x in batch(48))), BATCH // share)
    # LFM's product is of one batch, and no mean of those of its parts.
    held_part = slice(None) if name == "lfm" else part
    held = DataLoader(TensorDataset(*(x[held_part] for x in batch(24, seed=2))), 24)
    balancer = world.balance(METHODS[name](), model=model, train_loader=loader, val_loader=held)
    for _ in range(3):
        train(balancer, list(loader))
        balancer.end_epoch()
    return weights(world.model), str(balancer.state_dict()["methods"])


def on_rank(rank: int) -> dict[str, tuple[Tensor, str]]:
    return {name: run(name, slice(rank, None, 2), 2, True) for name in METHODS}


@pytest.fixture(scope="module")
def pair() -> Any:
    return spawn(on_rank)


@pytest.mark.parametrize("name", METHODS)
def test_replicas_and_states_are_identical(pair: Any, name: str) -> None:
    (first, state), (second, other) = pair[0][name], pair[1][name]
    assert torch.equal(first, second)
    assert state == other


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_equal_one_process(pair: Any, name: str) -> None:
    alone, _ = run(name, slice(None), 1, False)
    torch.testing.assert_close(pair[0][name][0], alone, rtol=1e-6, atol=1e-8)


def lfm_on_other_data(rank: int) -> str:
    world = World()
    held = [batch(8, seed=rank)]
    balancer = world.balance(
        METHODS["lfm"](), model=DistributedDataParallel(world.model), val_loader=held
    )
    train(balancer, [batch()])
    balancer.end_epoch()
    return str(balancer.state_dict()["methods"])


def test_a_weight_learned_on_other_held_out_data_of_each_rank_is_shared() -> None:
    first, second = spawn(lfm_on_other_data)
    assert first == second
