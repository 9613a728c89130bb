"""Copies, pickles, torch.jit and torch.export of a model that is balanced, or that holds one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.worlds import World, batch, train, weights

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Keeping(nn.Module):
    """Holds on to its latest features, one of them in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.v, self.head = nn.Linear(5, 8), nn.Linear(6, 8), nn.Linear(16, 3)
        self.kept: dict[str, Tensor] = {}

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        self.latest = self.a(a)
        self.kept["v"] = self.v(v)
        return self.head(torch.cat([self.latest, self.kept["v"]], 1))


class Trainer(nn.Module):
    """A module that holds its balancer, as those of trainers do."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Keeping()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        encoders = {"a": self.model.a, "v": self.model.v}
        self.balancer = eq.Balancer(
            eq.OGM(0.8), self.model, encoders, self.model.head, self.optimizer
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(*inputs)

    def step(self) -> None:
        a, v, target = torch.randn(6, 5), torch.randn(6, 6), torch.arange(6) % 3
        self.balancer.backward(self.balancer.loss(self(a, v), target))
        self.balancer.modulate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.latest, self.model.kept = None, {}


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "copy of a copy"])
def test_a_copy_of_a_module_that_holds_a_balancer_has_none(how: str) -> None:
    trainer = Trainer()
    trainer.step()
    copied: Any = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda module: pickle.loads(pickle.dumps(module)),
        "copy of a copy": lambda module: copy.deepcopy(copy.deepcopy(module)),
    }[how](trainer)
    a, v = torch.randn(6, 5), torch.randn(6, 6)
    assert torch.equal(copied(a, v), trainer(a, v))
    for ask in (lambda: copied.balancer.loss(copied(a, v), None), copied.step):
        with pytest.raises(eq.SetupError, match=r"balancer\.\w+: this is a copy.*make another"):
            ask()
    before = weights(copied)
    trainer.step()
    assert torch.equal(weights(copied), before)


def test_an_average_of_a_module_that_holds_a_balancer() -> None:
    trainer = Trainer()
    averaged = torch.optim.swa_utils.AveragedModel(trainer)
    trainer.step()
    averaged.update_parameters(trainer)
    assert torch.equal(weights(averaged.module), weights(trainer))


def test_a_model_that_keeps_its_features_is_exported_without_their_graph() -> None:
    trainer = Trainer()
    a, v = torch.randn(6, 5), torch.randn(6, 6)
    logits = trainer(a, v)
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(trainer.model)
    plain: Any = trainer.balancer.export()
    assert torch.equal(plain.latest, trainer.model.latest)
    assert not plain.latest.requires_grad
    assert not plain.kept["v"].requires_grad
    assert trainer.model.latest.requires_grad
    assert torch.equal(plain(a, v), logits)


def test_scripting_a_balanced_model_is_refused_and_its_export_is_scripted() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    train(balancer, [batch()])
    with pytest.raises(eq.SetupError, match=r"script what balancer\.export\(\) returns"):
        torch.jit.script(world.model.head)
    with pytest.raises(eq.SetupError, match=r"balancer\.detach"):
        torch.jit.script(nn.Sequential(world.model.encoders["audio"]))
    scripted = torch.jit.script(balancer.export().head)
    x = torch.randn(2, 16, dtype=torch.float64)
    assert torch.equal(scripted(x), world.model.head(x))


def test_a_scripted_model_is_not_attached_to() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)))
    with pytest.raises(eq.SetupError, match=r"compiled by torch\.jit"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        eq.Balancer(eq.OGM(), model, {"a": "0", "v": "1"}, None, optimizer)
    world = World()
    world.model.encoders["audio"] = torch.jit.script(world.model.encoders["audio"])
    with pytest.raises(eq.SetupError, match=r"encoders\['audio'\] is compiled by torch\.jit"):
        world.balance(eq.OGM())


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("how", ["trace", "export", "strict export"])
def test_traces_of_a_balanced_model_hold_nothing_of_it(how: str, training: bool) -> None:
    world, plain = World(), World()
    balancer, reference = world.balance(eq.OGM(0.8)), plain.balance(eq.OGM(0.8))
    *inputs, target = batch()
    logits = world.model(*inputs)
    world.model.train(training)
    traced: Any = (
        torch.jit.trace(world.model, inputs)
        if how == "trace"
        else torch.export.export(world.model, tuple(inputs), strict=how != "export").module()
    )
    assert torch.equal(traced(*inputs), logits)
    world.model.train()
    balancer.backward(balancer.loss(logits, target))  # of the forward before
    balancer.modulate()
    world.optimizer.step()
    train(reference, [(*inputs, target)])
    assert torch.equal(weights(world.model), weights(plain.model))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # the compiler asks for it
@pytest.mark.parametrize("way", ["in place", "one part"])
def test_a_compiled_fusion_is_run_again_as_the_plain_one(way: str) -> None:
    """`backend="eager"`: what is compiled is what the compiler sees, not what it makes of it."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.v = nn.Linear(5, 8), nn.Linear(6, 8)
            self.mix, self.out = nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            return self.out(self.mix(torch.cat([self.a(a), self.v(v)], 1)).tanh())

    metrics = []
    for compiled in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = Late()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        encoders = {"a": model.a, "v": model.v}
        balancer = eq.Balancer(eq.OGM(0.8), model, encoders, None, optimizer, track_every=1)
        if compiled:
            (model if way == "in place" else model.mix).compile(backend="eager")
        a, v, target = torch.randn(6, 5), torch.randn(6, 6), torch.arange(6) % 3
        for _ in range(2):
            balancer.backward(balancer.loss(model(a, v), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        metrics.append(balancer.metrics())
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
