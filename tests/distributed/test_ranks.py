"""Two ranks give the step of the one large batch, and their replicas stay bit-identical."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import spawn
from support.worlds import World, batch, train, weights

METHODS: dict[str, Callable[[], list[eq.Method]]] = {
    "ogm": lambda: [eq.OGM(0.8)],
    "ogm-ge": lambda: [eq.OGMGE(0.8)],
    "ogm-ge, elements, smoothed": lambda: [eq.OGMGE(0.8, noise=eq.ElementNoise(), smoothing=0.5)],
    "ogm-ge, updates": lambda: [eq.OGMGE(0.8, space="update")],
    "ge": lambda: [eq.GE()],
    "multi-loss": lambda: [eq.MultiLoss()],
    "ensemble": lambda: [eq.Ensemble()],
    "unimodal": lambda: [eq.Unimodal("visual")],
    "ogm-ge and multi-loss": lambda: [eq.OGMGE(0.8), eq.MultiLoss()],
}


def batches(dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    return [batch(24, 3, seed=seed, dtype=dtype) for seed in range(5)]


def state(balancer: eq.Balancer) -> dict[str, Any]:
    return copy.deepcopy({k: v for k, v in balancer.state_dict().items() if k != "evidence"})


def on_ranks(rank: int, dtype: torch.dtype, micro: int) -> dict[str, Any]:
    """All methods in one pair of processes: starting processes takes longer than training."""
    results = {}
    for name, make in METHODS.items():
        world = World(3, dtype=dtype)
        model = DistributedDataParallel(world.model)
        balancer = world.balance(
            *make(), model=model, scores=eq.Probe() if "smoothed" in name else "auto"
        )
        parts = [tuple(tensor[rank::2] for tensor in whole) for whole in batches(dtype)]
        train(balancer, parts, micro)
        results[name] = (weights(world.model), state(balancer), balancer.metrics())
    return results


@pytest.fixture(scope="module", params=[(torch.float64, 1), (torch.float32, 1), (torch.float64, 2)])
def pair(request: pytest.FixtureRequest) -> Any:
    dtype, micro = request.param
    return dtype, spawn(on_ranks, dtype, micro)


@pytest.mark.parametrize("name", METHODS)
def test_replicas_are_bit_identical(pair: Any, name: str) -> None:
    _, (first, second) = pair
    assert torch.equal(first[name][0], second[name][0])
    assert str(first[name][1]) == str(second[name][1])  # the methods' own modules, moments, ...


@pytest.mark.parametrize("name", METHODS)
def test_equal_to_the_one_large_batch(pair: Any, name: str) -> None:
    dtype, (first, _) = pair
    world = World(3, dtype=dtype)
    scores: Any = eq.Probe() if "smoothed" in name else "auto"
    train(world.balance(*METHODS[name](), scores=scores), batches(dtype))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(
        first[name][0], weights(world.model), rtol=tolerance, atol=tolerance / 10
    )


def evidence_on_ranks(rank: int) -> dict[str, float]:
    """Uneven parts, and a modality that only the second rank has."""
    world = World(3)
    balancer = world.balance(eq.OGM(0.8), model=DistributedDataParallel(world.model), track_every=1)
    whole = batch(24, 3)
    *inputs, target = (tensor[:5] if rank == 0 else tensor[5:] for tensor in whole)
    present = {"text": torch.full((len(target),), rank == 1)}
    logits = balancer.attached.model(*inputs)
    balancer.backward(balancer.loss(logits, target, present=present))
    balancer.modulate()
    return balancer.metrics()


def test_evidence_of_uneven_ranks_is_that_of_all_samples() -> None:
    first, second = spawn(evidence_on_ranks)
    world = World(3)
    balancer = world.balance(eq.OGM(0.8), track_every=1)
    *inputs, target = batch(24, 3)
    present = {"text": torch.arange(24) >= 5}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
    balancer.modulate()
    for name, value in balancer.metrics().items():
        if name.startswith(("evidence", "ratio", "coefficient")):
            assert first[name] == pytest.approx(value, rel=1e-12)
            assert first[name] == second[name]


def alone_on_ranks(rank: int) -> list[Any]:
    """Ranks that run experiments of their own, each in a group of itself."""
    groups = [dist.new_group([index]) for index in range(2)]
    world = World(seed=rank)
    balancer = world.balance(eq.OGMGE(0.8), process_group=groups[rank], seed=rank)
    train(balancer, [batch(seed=seed) for seed in range(3)])
    return [weights(world.model)]


def test_ranks_that_train_apart_do_not_mix() -> None:
    for rank, (found,) in enumerate(spawn(alone_on_ranks)):
        world = World(seed=rank)
        train(world.balance(eq.OGMGE(0.8), seed=rank), [batch(seed=seed) for seed in range(3)])
        assert torch.equal(found, weights(world.model))


def seeds_on_ranks(rank: int) -> str:
    world = World()
    balancer = world.balance(eq.OGMGE(0.8), model=DistributedDataParallel(world.model), seed=rank)
    try:
        train(balancer, [batch()])
    except eq.SetupError as error:
        return str(error)
    return "nothing"


def test_a_seed_that_differs_between_ranks_is_refused_on_all() -> None:
    for said in spawn(seeds_on_ranks):
        assert "seed=[0, 1]" in said
        assert "the same on every rank" in said
