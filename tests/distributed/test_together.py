"""Which ranks train together, what a static graph allows, and a modality that one rank lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import spawn
from support.worlds import World, batch, train, weights

BATCHES = [batch(24, seed=seed) for seed in range(4)]
COMBINING: dict[str, tuple[Callable[[], eq.Method], dict[str, Any]]] = {
    "mmpareto": (eq.MMPareto, {}),
    "agm": (eq.AGM, {}),
    "agm, any head": (eq.AGM, {}),
    "agm, one pass": (eq.AGM, {"micro_batches": 1}),
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "static graph": {"static_graph": True},
    "unused parameters": {"find_unused_parameters": True},
    "bucket view": {"gradient_as_bucket_view": True},
    "static graph, bucket view": {"static_graph": True, "gradient_as_bucket_view": True},
}


class Lacking(nn.Module):
    """Encoders that run only for modalities that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"audio": nn.Linear(4, 8), "visual": nn.Linear(5, 8)})
        self.head = nn.Linear(16, 3)

    def forward(self, audio: Tensor, visual: Tensor | None) -> Tensor:
        first = self.encoders["audio"](audio)
        second = torch.zeros_like(first) if visual is None else self.encoders["visual"](visual)
        return self.head(torch.cat([first, second], dim=1))  # type: ignore[no-any-return]


def made(name: str) -> World:
    torch.manual_seed(1)
    any_head = nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))
    return World(head=any_head if "any head" in name else None)


def said(run: Callable[[], Any]) -> str:
    """Return what a run raises, "" if nothing."""
    try:
        run()
    except (eq.SetupError, eq.StepError) as error:
        return str(error)
    return ""


def on_ranks(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    parts = [tuple(tensor[rank::2] for tensor in whole) for whole in BATCHES]
    for name, (make, settings) in COMBINING.items():
        for kind, options in KINDS.items():
            world = made(name)
            model = DistributedDataParallel(world.model, **options)
            balancer = world.balance(make(), model=model, **settings)
            try:
                train(balancer, parts)
                found[f"{name} on {kind}"] = weights(world.model)
            except eq.StepError as error:
                found[f"{name} on {kind}"] = str(error)
        found[f"{name} lacking"] = lacking(rank, make(), settings)
    found["accumulated"] = without_sync(parts)
    found["not wrapped"] = said(lambda: World().balance(eq.OGM(0.8)))
    found["alone"] = alone(rank)
    found["joined"] = said(lambda: joined(parts))
    found["further terms"] = further_terms(rank, parts)
    return found


def lacking(rank: int, method: eq.Method, settings: dict[str, Any]) -> Tensor:
    """In the second batch, the second rank has no visual sample."""
    torch.manual_seed(0)
    model = Lacking().double()
    replica = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    balancer = eq.Balancer(
        method,
        replica,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        features={"audio": slice(0, 8), "visual": slice(8, 16)},
        **settings,
    )
    for number, whole in enumerate(BATCHES):
        audio, visual, target = (tensor[rank::2] for tensor in whole)
        there = not (rank == 1 and number == 1)
        logits = replica(audio, visual if there else None)
        present = {"visual": torch.full((len(target),), there)}
        balancer.backward(balancer.loss(logits, target, present=present))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


def without_sync(parts: list[tuple[Tensor, ...]]) -> Tensor:
    """Two micro-batches, of which the first is not reduced."""
    world = World()
    model = DistributedDataParallel(world.model)
    balancer = world.balance(eq.MMPareto(), model=model)
    for whole in parts:
        for number, some in enumerate((slice(0, 6), slice(6, 12))):
            *inputs, target = (tensor[some] for tensor in whole)
            with model.no_sync() if number == 0 else contextlib.nullcontext():
                balancer.backward(balancer.loss(model(*inputs), target) / 2)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    return weights(world.model)


def alone(rank: int) -> Tensor:
    """As many steps as the rank has a number: nobody waits for the other."""
    world = World(seed=rank)
    balancer = world.balance(eq.OGMGE(0.8), process_group=eq.ALONE, seed=rank)
    train(balancer, BATCHES[: rank + 1])
    return weights(world.model)


def joined(parts: list[tuple[Tensor, ...]]) -> None:
    world = World()
    model = DistributedDataParallel(world.model)
    balancer = world.balance(eq.OGM(0.8), model=model)
    with model.join(throw_on_early_termination=False):
        train(balancer, parts)


def further_terms(rank: int, parts: list[tuple[Tensor, ...]]) -> str:
    """A loss has a term of the user's on one rank alone."""
    world = World()
    model = DistributedDataParallel(world.model)
    balancer = world.balance(eq.MMPareto(), model=model)
    *inputs, target = parts[0]
    loss = balancer.loss(model(*inputs), target)
    if rank == 1:
        loss = loss + sum(p.square().sum() for p in world.model.encoders.parameters())
    balancer.backward(loss)
    return said(balancer.modulate)


@pytest.fixture(scope="module")
def pair() -> Any:
    return spawn(on_ranks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMBINING)
def test_every_kind_of_wrapper_gives_the_step_of_one_process(
    pair: Any, name: str, kind: str
) -> None:
    first, second = (each[f"{name} on {kind}"] for each in pair)
    if name == "agm, any head" and "static" in kind:
        assert first == second
        assert "static_graph=False" in first
        assert "micro_batches=1" in first
        return
    assert torch.equal(first, second)
    make, settings = COMBINING[name]
    world = made(name)
    train(world.balance(make(), **settings), BATCHES)
    torch.testing.assert_close(first, weights(world.model), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", COMBINING)
def test_replicas_stay_equal_where_one_lacks_a_modality(pair: Any, name: str) -> None:
    first, second = (each[f"{name} lacking"] for each in pair)
    assert torch.equal(first, second)
    assert first.isfinite().all()


def test_micro_batches_that_are_not_reduced_by_themselves(pair: Any) -> None:
    world = World()
    train(world.balance(eq.MMPareto()), BATCHES)
    first, second = (each["accumulated"] for each in pair)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, weights(world.model), rtol=1e-6, atol=1e-8)


def test_ranks_of_which_nothing_says_that_they_train_together_are_refused(pair: Any) -> None:
    for each in pair:
        assert "process_group=eq.ALONE" in each["not wrapped"]
        assert "DistributedDataParallel" in each["not wrapped"]


def test_ranks_that_train_alone_need_not_meet(pair: Any) -> None:
    for rank, each in enumerate(pair):
        world = World(seed=rank)
        train(world.balance(eq.OGMGE(0.8), seed=rank), BATCHES[: rank + 1])
        assert torch.equal(each["alone"], weights(world.model))


def test_a_joined_loop_is_refused(pair: Any) -> None:
    assert all("same number of batches" in each["joined"] for each in pair)


def test_terms_that_one_rank_alone_has_are_refused_on_both(pair: Any) -> None:
    assert all("add the same terms on every rank" in each["further terms"] for each in pair)


def test_groups_are_no_collective_to_name() -> None:
    assert not dist.is_initialized()
    world = World()
    train(world.balance(eq.OGM(0.8), process_group=eq.ALONE), BATCHES[:1])
