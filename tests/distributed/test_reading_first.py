"""A reading before the first step: DDP does not wait for a backward pass that never comes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import spawn
from support.worlds import World, batch, train, weights


def run(rank: int, static: bool, reads: bool) -> Tensor:
    torch.manual_seed(0)
    world = World(head=nn.Sequential(nn.Linear(16, 3), nn.Tanh()))
    model = DistributedDataParallel(world.model, static_graph=static)
    balancer = world.balance(eq.OGM(0.8), model=model)
    if reads:
        with torch.no_grad():
            balancer.unimodal_logits(*batch(seed=9)[:2])
        assert "forward" not in vars(model)
    batches = [tuple(tensor[rank::2] for tensor in batch(seed=seed)) for seed in range(3)]
    train(balancer, batches, model=model)
    return weights(world.model)


def on_ranks(rank: int) -> dict[bool, list[Tensor]]:
    return {
        static: [run(rank, static, reads) for reads in (False, True)] for static in (False, True)
    }


@pytest.fixture(scope="module")
def pair() -> list[dict[bool, list[Tensor]]]:
    return spawn(on_ranks)


@pytest.mark.parametrize("static", [False, True])
def test_training_is_as_without_the_reading(
    pair: list[dict[bool, list[Tensor]]], static: bool
) -> None:
    plain, read = pair[0][static]
    assert torch.equal(plain, read)
    assert torch.equal(read, pair[1][static][1])
