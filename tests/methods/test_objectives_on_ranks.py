"""Objectives: two ranks with half of the data are replicas, and equal one process.

All in one pair of processes: starting processes takes longer than training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.testing import spawn
from support.worlds import World, batch, train, weights


def mlb() -> list[eq.Method]:
    return [eq.MultiLoss(), eq.OGM(0.8, coefficient=eq.TwoSided(beta=2.0), parameters="all")]


METHODS: Mapping[str, Callable[[], eq.Method | Sequence[eq.Method]]] = {
    "arl": lambda: eq.ARL(start=-1),
    "arl, uniform": lambda: eq.ARL(start=0, weights=eq.UniformWeights()),
    "cml": eq.CML,
    "gradient-blending": lambda: eq.GradientBlending(eq.OnlineBlending(1)),
    "iprm": eq.IPRM,
    "lfm": lambda: eq.LFM(eq.LearnedWeight(0.05, 0.5)),
    "midas": lambda: eq.MIDAS(warm_up=1),
    "mimo": lambda: eq.MIMO(smoothing=0.3),
    "mlb": mlb,
    "mmcosine": eq.MMCosine,
    "mmcosine, own vectors": lambda: eq.MMCosine(vectors=eq.OwnVectors()),
    "pmr": lambda: eq.PMR(entropy=eq.PrototypicalEntropy(0.2, until=9)),
    "tcmax": lambda: eq.TCMax(negatives=32),
}
WITHIN_A_RANK = {"midas", "tcmax"}  # they put samples of one batch together
BATCH = 12


def run(name: str, part: slice, share: int, distributed: bool) -> tuple[Tensor, str]:
    """Train for three epochs on a part of every batch, with that part as the data to pass over."""
    world = World(3)
    model = DistributedDataParallel(world.model) if distributed else world.model
    loader = DataLoader(TensorDataset(*(x[part] for x in batch(48, 3))), BATCH // share)
    # LFM's product is of one batch, and no mean of those of its parts.
    held_part = slice(None) if name == "lfm" else part
    held = DataLoader(TensorDataset(*(x[held_part] for x in batch(24, 3, seed=2))), 24)
    made = METHODS[name]()
    methods = [made] if isinstance(made, eq.Method) else list(made)
    scores = methods[0].readouts if name == "mlb" else "auto"
    balancer = world.balance(
        *methods, model=model, train_loader=loader, val_loader=held, scores=scores
    )
    for _ in range(3):
        train(balancer, list(loader))
        balancer.end_epoch()
    return weights(world.model), str(balancer.state_dict()["methods"])


def lfm_on_other_data(rank: int) -> str:
    world = World()
    balancer = world.balance(
        eq.LFM(eq.LearnedWeight(0.05, 0.5)),
        model=DistributedDataParallel(world.model),
        val_loader=[batch(8, seed=rank)],
    )
    train(balancer, [batch()])
    balancer.end_epoch()
    return str(balancer.state_dict()["methods"])


def on_rank(rank: int) -> tuple[dict[str, tuple[Tensor, str]], str]:
    found = {name: run(name, slice(rank, None, 2), 2, True) for name in METHODS}
    return found, lfm_on_other_data(rank)


@pytest.fixture(scope="module")
def pair() -> Any:
    return spawn(on_rank)


@pytest.mark.parametrize("name", METHODS)
def test_replicas_and_states_are_identical(pair: Any, name: str) -> None:
    (first, state), (second, other) = (found[name] for found, _ in pair)
    assert torch.equal(first, second)
    assert state == other


@pytest.mark.parametrize("name", sorted(METHODS.keys() - WITHIN_A_RANK))
def test_two_ranks_equal_one_process(pair: Any, name: str) -> None:
    """What is left out of the loss, such as the bias of MMCosine's head, decays alike too."""
    alone, _ = run(name, slice(None), 1, False)
    torch.testing.assert_close(pair[0][0][name][0], alone, rtol=1e-6, atol=1e-8)


def test_a_weight_learned_on_other_held_out_data_of_each_rank_is_shared(pair: Any) -> None:
    assert pair[0][1] == pair[1][1]
