"""The optimizer of methods' own modules, beside every kind that the user may have."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import equimodal as eq
from equimodal.update.own import leading
from support.worlds import World, batch


def package(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name) if importlib.util.find_spec(name) else None


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.ndim > 1]


def vectors(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.ndim < 2]


def lookahead(model: nn.Module) -> Any:
    more = package("pytorch_optimizer") or pytest.skip("needs pytorch_optimizer")
    return more.Lookahead(torch.optim.SGD(model.parameters(), lr=0.05))


def schedule_free(model: nn.Module) -> Any:
    free = package("schedulefree") or pytest.skip("needs schedulefree")
    made = free.AdamWScheduleFree(model.parameters(), lr=0.01)
    made.train()
    return made


CASES: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "Muon, AdamW": (
        lambda m: [torch.optim.Muon(matrices(m), lr=0.02), torch.optim.AdamW(vectors(m), lr=0.003)],
        "AdamW",
    ),
    "AdamW, Muon": (
        lambda m: [torch.optim.AdamW(vectors(m), lr=0.003), torch.optim.Muon(matrices(m), lr=0.02)],
        "AdamW",
    ),
    "Muon": (lambda m: torch.optim.Muon(matrices(m), lr=0.02), "AdamW"),
    "Lookahead": (lookahead, "SGD"),
    "schedule-free": (schedule_free, "AdamWScheduleFree"),
    "rate in a tensor": (
        lambda m: torch.optim.Adam(m.parameters(), lr=torch.tensor(0.01)),
        "Adam",
    ),
}


@pytest.mark.parametrize("name", [*CASES])
def test_modules_of_methods_are_trained_beside(name: str) -> None:
    make, kind = CASES[name]
    world = World(dtype=torch.float32)
    given = make(world.model)
    method = eq.MultiLoss()
    balancer = eq.Balancer(method, world.model, world.encoders, world.model.head, given)
    for step in range(2):
        *inputs, target = batch(seed=step)
        loss = balancer.loss(world.model(*[x.float() for x in inputs]), target)
        if step == 1:
            before = [p.detach().clone() for p in method.readouts.parameters()]
        balancer.backward(loss)
        balancer.modulate()
        for each in given if isinstance(given, list) else [given]:
            each.step()
            each.zero_grad()
    assert type(balancer.own.optimizer).__name__ == kind
    leader = leading(balancer.optimizers)
    assert float(balancer.own.optimizer.param_groups[0]["lr"]) == float(  # type: ignore[union-attr]
        leader.param_groups[0]["lr"]
    )
    moved = [
        (p - old).abs().max() > 0
        for p, old in zip(method.readouts.parameters(), before, strict=True)
    ]
    assert all(moved)


def stepped(world: World, balancer: eq.Balancer, seed: int) -> None:
    *inputs, target = batch(seed=seed)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    world.optimizer.step()
    world.optimizer.zero_grad()


def test_a_first_group_that_stands_still_does_not_keep_probes_from_learning() -> None:
    world = World()
    audio = list(world.encoders["audio"].parameters())
    others = [p for p in world.model.parameters() if all(p is not known for known in audio)]
    groups = [{"params": audio, "lr": 0.0}, {"params": others, "lr": 0.1}]
    world.optimizer = torch.optim.SGD(groups, lr=0.1)
    balancer = world.balance(eq.OGM(0.8), scores=eq.Probe())
    for step in range(2):
        stepped(world, balancer, step)
    assert balancer.own.optimizer is not None
    assert balancer.own.optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("order", [1, -1])
def test_probes_learn_at_the_rate_of_the_head_whatever_the_order_of_groups(order: int) -> None:
    """Rates that fall with depth: at that of the lowest layer a new classifier would stand still."""
    world = World()
    head = list(world.model.head.parameters())
    audio = list(world.encoders["audio"].parameters())
    known = {*head, *audio}
    others = [p for p in world.model.parameters() if p not in known]
    groups: list[dict[str, Any]] = [
        {"params": audio, "lr": 1e-6},
        {"params": others, "lr": 0.5},  # faster than the head, and not its work
        {"params": head, "lr": 0.1},
    ]
    world.optimizer = torch.optim.SGD(groups[::order], lr=0.1)
    balancer = world.balance(eq.OGM(0.8), scores=eq.Probe())
    schedule = torch.optim.lr_scheduler.StepLR(world.optimizer, 1, gamma=0.5)
    for step in range(2):
        stepped(world, balancer, step)
        assert balancer.own.optimizer is not None
        assert balancer.own.optimizer.param_groups[0]["lr"] == 0.1 * 0.5**step
        schedule.step()


def test_parameters_added_later_are_balanced_from_then_on() -> None:
    """The first layer of audio joins at step 2, as in staged unfreezing."""

    def make() -> tuple[World, torch.optim.Optimizer, list[nn.Parameter]]:
        world = World()
        first = next(iter(world.encoders["audio"].children()))
        late = list(first.parameters())
        first.requires_grad_(False)
        rest = [p for p in world.model.parameters() if p.requires_grad]
        return world, torch.optim.SGD(rest, lr=0.1), late

    class Constant(eq.OGM):
        def coefficients(self, evidence: eq.Evidence) -> torch.Tensor:
            return torch.tensor([0.25, 1.0], dtype=torch.float64)

    for space in ("gradient", "update"):
        (ours, optimizer, late), (theirs, twin, later) = make(), make()
        method = Constant(0.8, space=space, parameters="all")
        balancer = eq.Balancer(method, ours.model, ours.encoders, ours.model.head, optimizer)
        for step in range(4):
            if step == 2:
                for of, parameters in ((optimizer, late), (twin, later)):
                    for p in parameters:
                        p.requires_grad_(True)
                    of.add_param_group({"params": parameters})
            *inputs, target = batch(seed=step)
            balancer.backward(balancer.loss(ours.model(*inputs), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
            nn.functional.cross_entropy(theirs.model(*inputs), target).backward()
            for p in theirs.encoders["audio"].parameters():
                if p.grad is not None:
                    p.grad *= 0.25
            twin.step()
            twin.zero_grad()
        for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_step_may_be_left_out_where_an_encoder_has_parameters_of_no_optimizer() -> None:
    """Their gradients are cleared by nobody, and are not waiting for a step."""
    world = World()
    outside = next(world.encoders["audio"].parameters())
    inside = [p for p in world.model.parameters() if p is not outside]
    world.optimizer = torch.optim.SGD(inside, lr=0.1)
    balancer = world.balance(eq.OGM(0.8))
    for step in range(3):
        *inputs, target = batch(seed=step)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        balancer.modulate()
        if step != 1:
            world.optimizer.step()
        world.optimizer.zero_grad()
    assert balancer.steps == 2
