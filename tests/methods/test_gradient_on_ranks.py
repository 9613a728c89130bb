"""Methods that judge gradients: two ranks with micro-batches give the step of the large batch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import spawn
from support.worlds import World, batch, train, weights

METHODS: dict[str, Callable[[], eq.Method]] = {
    "mmpareto": eq.MMPareto,
    "agm": eq.AGM,
    "cggm": lambda: eq.CGGM(weight=0.0),
    "cggm, released": lambda: eq.CGGM(direction=eq.WeightCosine()),
    "inforeg": eq.InfoReg,
    "dgl": eq.DGL,
}
if importlib.util.find_spec("torchjd") is not None:
    METHODS["mmpareto, aligned"] = lambda: eq.MMPareto(conflict=eq.TorchJD("AlignedMTL"))


def epochs() -> list[list[tuple[Tensor, ...]]]:
    return [[batch(24, 3, seed=seed) for seed in range(3)] for _ in range(2)]


def run(balancer: eq.Balancer, part: slice, micro: int, model: Any) -> None:
    for batches in epochs():
        train(balancer, [tuple(t[part] for t in whole) for whole in batches], micro, model)
        balancer.end_epoch()


def on_ranks(rank: int) -> dict[str, tuple[Tensor, str]]:
    """All methods in one pair of processes: starting processes takes longer than training."""
    results = {}
    for name, make in METHODS.items():
        world = World(3)
        model = DistributedDataParallel(world.model)
        balancer = world.balance(make(), model=model)
        run(balancer, slice(rank, None, 2), 2, model)
        results[name] = (weights(world.model), str(balancer.state_dict()["methods"]))
    return results


@pytest.fixture(scope="module")
def pair() -> Any:
    return spawn(on_ranks)


@pytest.mark.parametrize("name", METHODS)
def test_equal_to_the_one_large_batch(pair: Any, name: str) -> None:
    first, second = pair
    assert torch.equal(first[name][0], second[name][0])
    assert first[name][1] == second[name][1]
    world = World(3)
    run(world.balance(METHODS[name]()), slice(None), 1, world.model)
    torch.testing.assert_close(first[name][0], weights(world.model), rtol=1e-9, atol=1e-10)
