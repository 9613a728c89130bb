"""What of a coefficient arrives through an optimizer: as by hand, or refused by name."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import equimodal as eq
from equimodal.update.probing import character
from support.worlds import World, batch

Parameters = list[nn.Parameter]
K = 0.25


class Constant(eq.OGM):
    """A coefficient that does not depend on the evidence: 0.25 for audio, 1 for visual."""

    def coefficients(self, evidence: eq.Evidence) -> Tensor:
        return torch.tensor([K, 1.0], dtype=torch.float64)


class Master(torch.optim.Optimizer):
    """Keeps a copy of the weights in its state and writes them from it."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    kept = self.state[p].setdefault("kept", p.detach().float().clone())
                    p.copy_(kept.add_(p.grad.float(), alpha=-group["lr"]))


class Anchored(torch.optim.Optimizer):
    """Sums gradients and writes the weights from where they were at first."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    start = state.setdefault("start", p.detach().clone())
                    total = state.setdefault("total", torch.zeros_like(p)).add_(p.grad)
                    p.copy_(start - group["lr"] * total)


class Wrapper:
    """Passes steps on, and is no optimizer by class."""

    def __init__(self, optimizer: torch.optim.Optimizer, name: str = "optimizer") -> None:
        setattr(self, name, optimizer)
        self.name = name

    @property
    def param_groups(self) -> Any:
        return getattr(self, self.name).param_groups

    def step(self) -> None:
        getattr(self, self.name).step()

    def zero_grad(self) -> None:
        getattr(self, self.name).zero_grad()


class Silent(torch.optim.Optimizer):
    """An optimizer by class that was never made one: its own hooks never run."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.base_optimizer = base
        self.param_groups = base.param_groups
        self.defaults = base.defaults

    def step(self, closure: Any = None) -> Any:
        return self.base_optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base_optimizer.zero_grad(set_to_none)


def of(module: str, name: str, **settings: Any) -> Callable[[Parameters], Any]:
    def make(parameters: Parameters) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package = pytest.importorskip(module.split(".")[0], reason=f"needs {module}")
        del package
        return getattr(importlib.import_module(module), name)(parameters, **settings)

    return make


TORCH, MORE, BITS, AO = "torch.optim", "pytorch_optimizer", "bitsandbytes.optim", "torchao.optim"
LINEAR: dict[str, Callable[[Parameters], Any]] = {
    "SGD": of(TORCH, "SGD", lr=0.05, momentum=0.9, weight_decay=0.01),
    "SGD, decaying fast": of(TORCH, "SGD", lr=0.05, momentum=0.9, weight_decay=0.5),
    "ASGD": of(TORCH, "ASGD", lr=0.01),
    "SGDW": of(MORE, "SGDW", lr=0.01),
}
SCALE_FREE: dict[str, Callable[[Parameters], Any]] = {
    "Adam": of(TORCH, "Adam", lr=0.01),
    "AdamW, fused": of(TORCH, "AdamW", lr=0.01, fused=True),
    "AdamW, waiting": of(TORCH, "AdamW", lr=0.0),
    "AdamW, rate in a tensor": of(TORCH, "AdamW", lr=torch.tensor(0.01)),
    "NAdam": of(TORCH, "NAdam", lr=0.01),
    "RAdam": of(TORCH, "RAdam", lr=0.01),
    "Adagrad": of(TORCH, "Adagrad", lr=0.01),
    "Adadelta": of(TORCH, "Adadelta", lr=1.0),
    "RMSprop": of(TORCH, "RMSprop", lr=0.01),
    "Rprop": of(TORCH, "Rprop", lr=0.001),
    "Adafactor": of(TORCH, "Adafactor", lr=0.01),
    "Lion": of(MORE, "Lion", lr=0.01),
    "SignSGD": of(MORE, "SignSGD", lr=0.01),
    "LAMB": of(MORE, "Lamb", lr=0.01),
    "Adan": of(MORE, "Adan", lr=0.01),
    "AdEMAMix": of(MORE, "AdEMAMix", lr=0.01),
    "Kate": of(MORE, "Kate", lr=0.01),
    "AdamW8bit": of(BITS, "AdamW8bit", lr=0.01),
    "Lion8bit": of(BITS, "Lion8bit", lr=0.01),
    "AdamW4bit": of(AO, "AdamW4bit", lr=0.01),
}
KEEPING: dict[str, Callable[[Parameters], Any]] = {
    "SGDScheduleFree": of("schedulefree", "SGDScheduleFree", lr=0.1),
    "AdamWScheduleFree": of("schedulefree", "AdamWScheduleFree", lr=0.01),
    "RAdamScheduleFree": of("schedulefree", "RAdamScheduleFree", lr=0.01),
    "MADGRAD": of(MORE, "MADGRAD", lr=0.01),
    "Ranger21": of(MORE, "Ranger21", num_iterations=100, lr=0.01),
    "Nero": of(MORE, "Nero", lr=0.01),
    "masters": lambda parameters: Master(parameters, lr=0.05),
    "anchored": lambda parameters: Anchored(parameters, lr=0.05),
    "masters, wrapped": lambda parameters: Wrapper(Master(parameters, lr=0.05)),
}


def lookahead(parameters: Parameters) -> Any:
    return of(MORE, "Lookahead")(of(TORCH, "SGD", lr=0.05)(parameters))


def schedule_free(parameters: Parameters) -> Any:
    made = of("schedulefree", "ScheduleFreeWrapper")(of(TORCH, "SGD", lr=0.05)(parameters))
    made.train()
    return made


def lightning(parameters: Parameters) -> Any:
    from lightning.pytorch.core.optimizer import LightningOptimizer

    return LightningOptimizer(torch.optim.SGD(parameters, lr=0.05))


WRAPPED: dict[str, tuple[Callable[[Parameters], Any], Callable[[Any], Any]]] = {
    "optimizer": (lambda p: Wrapper(torch.optim.SGD(p, lr=0.05)), lambda w: w.optimizer),
    "_optimizer": (
        lambda p: Wrapper(torch.optim.SGD(p, lr=0.05), "_optimizer"),
        lambda w: w._optimizer,
    ),
    "twice": (
        lambda p: Wrapper(Wrapper(torch.optim.SGD(p, lr=0.05))),  # type: ignore[arg-type]
        lambda w: w.optimizer.optimizer,
    ),
    "silent": (lambda p: Silent(torch.optim.SGD(p, lr=0.05)), lambda w: w.base_optimizer),
    "Lookahead": (lookahead, lambda w: w.optimizer),
    "ScheduleFreeWrapper": (schedule_free, lambda w: w.base),
}


@pytest.fixture(params=["gradient", "update"])
def space(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def attached(world: World, optimizer: Any, method: eq.Method, **settings: Any) -> eq.Balancer:
    return eq.Balancer(method, world.model, world.encoders, world.model.head, optimizer, **settings)


def modulated(world: World) -> list[nn.Parameter]:
    return [p for p in world.encoders["audio"].parameters() if p.ndim > 1]


def by_hand(world: World, optimizer: Any, hooked: Any, space: str, steps: int) -> None:
    """Train with a coefficient on audio's weights, written out."""
    ours = modulated(world)
    old = [p.detach().clone() for p in ours]

    def remember(*_: Any) -> None:
        for known, p in zip(old, ours, strict=True):
            known.copy_(p.detach())

    def scale(*_: Any) -> None:
        with torch.no_grad():
            for known, p in zip(old, ours, strict=True):
                p.copy_(torch.lerp(known, p, K))

    if space == "update":
        hooked.register_step_pre_hook(remember)
        hooked.register_step_post_hook(scale)
    for step in range(steps):
        *inputs, target = single(step)
        functional.cross_entropy(world.model(*inputs), target).backward()
        if space == "gradient":
            for p in ours:
                assert p.grad is not None
                p.grad *= K
        optimizer.step()
        optimizer.zero_grad()


def single(step: int) -> tuple[Tensor, ...]:
    *inputs, target = batch(seed=step)
    return (*[x.float() for x in inputs], target)


def balanced(world: World, optimizer: Any, balancer: eq.Balancer, steps: int) -> None:
    for step in range(steps):
        *inputs, target = single(step)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()


def same(ours: World, theirs: World) -> None:
    for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*LINEAR, *SCALE_FREE])
def test_what_arrives_is_what_a_loop_by_hand_does(name: str, space: str) -> None:
    """Or, in the space of gradients, it is said that it will not."""
    make = {**LINEAR, **SCALE_FREE}[name]
    ours, theirs = World(dtype=torch.float32), World(dtype=torch.float32)
    optimizer = make(list(ours.model.parameters()))
    twin = make(list(theirs.model.parameters()))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        balancer = attached(ours, optimizer, Constant(0.8, space=space))  # type: ignore[arg-type]
    said = [str(each.message) for each in told if each.category is eq.BalanceWarning]
    if space == "gradient" and name in SCALE_FREE:
        assert len(said) == 1
        assert said[0].startswith(f"{type(optimizer).__name__} does not follow the size of grad")
        assert 'give Constant(space="update")' in said[0]
    else:
        assert not said
    for each in (optimizer, twin):
        if each.param_groups[0]["lr"] == 0:
            each.param_groups[0]["lr"] = 0.01
    balanced(ours, optimizer, balancer, 4)
    by_hand(theirs, twin, twin, space, 4)
    same(ours, theirs)


@pytest.mark.parametrize("name", [*KEEPING])
def test_updates_that_do_not_stay_are_refused_by_name(name: str) -> None:
    world = World(dtype=torch.float32)
    optimizer = KEEPING[name](list(world.model.parameters()))
    before = copy.deepcopy(world.model.state_dict())
    with pytest.raises(eq.SetupError) as caught:
        attached(world, optimizer, eq.OGM(0.8, space="update"))
    assert type(optimizer).__name__ in str(caught.value)
    assert "takes the weights from its own state" in str(caught.value)
    assert str(before) == str(world.model.state_dict())
    assert not any(world.encoders[name]._forward_hooks for name in world.encoders)


def test_masters_of_half_precision_are_seen() -> None:
    world = World(dtype=torch.bfloat16)
    sound = torch.optim.Adam(world.model.parameters(), lr=1e-4)
    attached(world, sound, eq.OGM(0.8, space="update")).detach()
    with pytest.raises(eq.SetupError, match="Master takes the weights from its own state"):
        attached(world, Master(world.model.parameters(), lr=1e-4), eq.OGM(0.8, space="update"))


@pytest.mark.parametrize("name", [*WRAPPED])
def test_wrapped_optimizers_are_scaled_where_they_step(name: str, space: str) -> None:
    make, within = WRAPPED[name]
    ours, theirs = World(dtype=torch.float32), World(dtype=torch.float32)
    optimizer, twin = make(list(ours.model.parameters())), make(list(theirs.model.parameters()))
    balancer = attached(ours, optimizer, Constant(0.8, space=space))  # type: ignore[arg-type]
    balanced(ours, optimizer, balancer, 12)  # Lookahead takes half back every five
    by_hand(theirs, twin, within(twin), space, 12)
    assert balancer.steps == 12
    same(ours, theirs)


def test_lightnings_wrapper_is_seen_through() -> None:
    world = World(dtype=torch.float32)
    wrapper = lightning(list(world.model.parameters()))
    balancer = attached(world, wrapper, Constant(0.8))
    assert balancer.optimizers == [wrapper.optimizer]


def test_wrapped_optimizers_are_unscaled_once() -> None:
    """A scaler knows the optimizer that it is to step, which is the wrapper."""
    ours, theirs = World(dtype=torch.float32), World(dtype=torch.float32)
    wrapper = Wrapper(torch.optim.SGD(ours.model.parameters(), lr=0.05))
    twin = torch.optim.SGD(theirs.model.parameters(), lr=0.05)
    balancer = attached(ours, wrapper, Constant(0.8))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    *inputs, target = single(0)
    balancer.backward(scaler.scale(balancer.loss(ours.model(*inputs), target)))
    balancer.modulate(scaler)
    scaler.step(wrapper)  # type: ignore[arg-type]
    by_hand(theirs, twin, twin, "gradient", 1)
    same(ours, theirs)


def test_the_probe_leaves_optimizer_and_random_numbers_alone() -> None:
    world = World(dtype=torch.float32)
    optimizer = torch.optim.Adamax(world.model.parameters(), lr=0.0123, eps=1e-9)
    before, drawn = copy.deepcopy(optimizer.state_dict()), torch.get_rng_state()
    seen = character(optimizer)
    assert seen is not None
    assert seen.cancels
    assert str(before) == str(optimizer.state_dict())
    assert torch.equal(drawn, torch.get_rng_state())
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam"])
def test_one_step_size_for_all_is_said(name: str) -> None:
    world = World(dtype=torch.float32)
    optimizer = of(MORE, name)(list(world.model.parameters()))
    with pytest.warns(eq.BalanceWarning) as told:
        attached(world, optimizer, eq.OGM(0.8))
    assert sum("finds its step size from all parameters" in str(t.message) for t in told) == 1


def test_methods_without_coefficients_are_told_nothing() -> None:
    for method in (eq.Joint(), eq.GE(), eq.MultiLoss()):
        world = World(adam=True)
        world.balance(method)


def sam(parameters: Any, **settings: Any) -> Any:
    """Return the usual two-step wrapper."""

    class SAM(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(parameters, {"rho": 0.05, **settings})
            self.base_optimizer = torch.optim.SGD(self.param_groups, **settings)
            self.param_groups = self.base_optimizer.param_groups

        @torch.no_grad()
        def first_step(self) -> None:
            gradients = [p.grad for p in self.param_groups[0]["params"]]
            size = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            for p in self.param_groups[0]["params"]:
                self.state[p]["old"] = p.detach().clone()
                p.add_(0.05 * p.grad / size)
            self.zero_grad()

        @torch.no_grad()
        def second_step(self) -> None:
            for p in self.param_groups[0]["params"]:
                p.copy_(self.state[p]["old"])
            self.base_optimizer.step()
            self.zero_grad()

    return SAM()


@pytest.mark.parametrize("climbs", ["balanced", "plainly"])
def test_two_steps_in_one_scale_the_update_from_where_it_started(climbs: str, space: str) -> None:
    ours, theirs = World(), World()
    optimizer, twin = sam(ours.model.parameters(), lr=0.05), sam(theirs.model.parameters(), lr=0.05)
    balancer = attached(ours, optimizer, Constant(0.8, space=space))  # type: ignore[arg-type]
    for step in range(3):
        *inputs, target = batch(seed=step)
        if climbs == "balanced":
            balancer.backward(balancer.loss(ours.model(*inputs), target))
            balancer.modulate()
        else:
            functional.cross_entropy(ours.model(*inputs), target).backward()
        optimizer.first_step()
        balancer.backward(balancer.loss(ours.model(*inputs), target))
        balancer.modulate()
        optimizer.second_step()

        old = [p.detach().clone() for p in modulated(theirs)]
        for turn in (twin.first_step, twin.second_step):
            functional.cross_entropy(theirs.model(*inputs), target).backward()
            if space == "gradient" and (climbs == "balanced" or turn == twin.second_step):
                for p in modulated(theirs):
                    assert p.grad is not None
                    p.grad *= K
            turn()
        if space == "update":
            with torch.no_grad():
                for known, p in zip(old, modulated(theirs), strict=True):
                    p.copy_(torch.lerp(known, p, K))
    assert balancer.steps == 3
    for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
