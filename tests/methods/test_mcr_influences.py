"""The influences of MCR by products, by one run of the head, and by a run for every set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.lfm import jensen_shannon_divergence
from equimodal.functional.mcr import changed_prediction
from equimodal.methods.objective import influence
from equimodal.methods.objective.mcr import MCR
from equimodal.scores.generic import Structure
from equimodal.scores.rows import Head
from support.worlds import World, batch, train, weights

HEADS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda width: nn.Linear(width, 3),
    "without a bias": lambda width: nn.Linear(width, 3, bias=False),
    "tanh": lambda width: nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, 3)),
    "BatchNorm": lambda width: nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 3)),
}


def trained(head: str, strategy: int, missing: bool) -> Tensor:
    torch.manual_seed(5)
    world = World(3, head=HEADS[head](24))
    method = MCR(importance=2.0, strategy=strategy, permutations=3)
    balancer = world.balance(method)
    present = {"text": torch.arange(8) % 3 > 0} if missing else {}
    for seed in range(3):
        *inputs, target = batch(8, 3, seed=seed)
        balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    return weights(world.model)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("strategy", [-1, 0, 1])
@pytest.mark.parametrize("head", HEADS)
def test_every_way_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, head: str, strategy: int, missing: bool
) -> None:
    short = trained(head, strategy, missing)
    monkeypatch.setattr(Head, "structure", lambda *_: Structure(False))
    in_one_run = trained(head, strategy, missing)
    monkeypatch.setattr(Head, "takes_rows", lambda *_: False)
    set_by_set = trained(head, strategy, missing)
    torch.testing.assert_close(in_one_run, set_by_set, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(short, set_by_set, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("head", "runs"), [("linear", 1), ("tanh", 2), ("BatchNorm", 1 + 2 * 6)])
def test_how_often_the_head_runs(head: str, runs: int) -> None:
    world = World(3, head=HEADS[head](24))
    balancer = world.balance(MCR(permutations=2))
    train(balancer, [batch(6, 3)])  # the head is asked what it is
    calls: list[Any] = []
    world.model.head.register_forward_hook(lambda *_: calls.append(None))
    train(balancer, [batch(6, 3)])
    assert len(calls) == runs


@pytest.mark.parametrize("rows", [1, 4])
def test_the_divergence_and_its_gradient(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, rows, 5, 4, generator=generator, dtype=torch.float64) * 3
    second = torch.randn(3, 4, 5, 4, generator=generator, dtype=torch.float64) * 3
    weighed = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    found = []
    for divergence in (changed_prediction, jensen_shannon_divergence):
        leaves = [first.clone().requires_grad_(), second.clone().requires_grad_()]
        values = divergence(*leaves)
        found.append([values, *torch.autograd.grad((values * weighed).sum(), leaves)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-14)


def test_predictions_that_exclude_each_other_have_a_finite_gradient() -> None:
    first = torch.tensor([[[[400.0, 0.0, -400.0]]]], requires_grad=True)
    second = torch.tensor([[[[-400.0, 0.0, -400.0]]]], requires_grad=True)
    value = changed_prediction(first, second)
    torch.testing.assert_close(value, torch.full((1, 1, 1), 2.0).log())
    assert all(g.isfinite().all() for g in torch.autograd.grad(value.sum(), [first, second]))


# ---------------------------------------------------------------------- many modalities


class Many(nn.Module):
    """Seven modalities that are all there is to a head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({f"m{i}": nn.Linear(3, 8) for i in range(7)})
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        pairs = zip(self.encoders.values(), inputs, strict=True)
        logits: Tensor = self.head(torch.cat([encoder(x) for encoder, x in pairs], dim=1))
        return logits


def influences(draws: int, **present: Tensor) -> Tensor:
    """The mean of the sum over all sets, over several draws."""
    torch.manual_seed(0)
    model = Many(nn.Linear(56, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = MCR(importance=1.0, permutations=8, contrast=0, unimodal=0)
    balancer = eq.Balancer(method, model, dict(model.encoders.items()), model.head, optimizer)
    inputs = 3 * torch.randn(7, 6, 3, dtype=torch.float64)
    logits = model(inputs)
    step = balancer.attached.step(logits, torch.arange(6) % 3, present, None, 0)
    found = [method.objective(step)["importance"].detach() for _ in range(draws)]
    return torch.stack(found).mean()


@pytest.mark.parametrize("present", [{}, {"m1": torch.arange(6) > 0}], ids=["all", "one missing"])
def test_sets_that_are_drawn_stand_for_all(
    monkeypatch: pytest.MonkeyPatch, present: dict[str, Tensor]
) -> None:
    """On average, over permutations and sets, above six modalities."""
    few = influences(400, **present)
    monkeypatch.setattr(influence, "EXACT", 7)
    torch.testing.assert_close(few, influences(200, **present), rtol=0.01, atol=0)
