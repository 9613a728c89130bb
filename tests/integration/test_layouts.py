"""Which input of the head is which modality: the same whatever ran first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.cat([one, other], dim=-1))
        return logits


class Model(nn.Module):
    """What its head is given as second is visual, or made by both encoders."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.audio, self.visual, self.head = nn.Linear(4, 8), nn.Linear(5, 8), Pair()
        self.gate = nn.Parameter(torch.zeros(()))
        self.norm, self.drop, self.way = nn.BatchNorm1d(8), nn.Dropout(0.5), way
        self.forwards = 0

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        self.forwards += 1
        a, v = self.audio(a), self.drop(self.norm(self.visual(v)))
        other = {"plain": v, "product": a * v, "closed gate": v + self.gate * a}[self.way]
        logits: Tensor = self.head(a, other)
        return logits


def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, v = torch.randn(8, 4, generator=generator), torch.randn(8, 5, generator=generator)
    return a, v, torch.arange(8) % 3


def made(way: str, frozen: bool = False) -> tuple[Model, eq.Balancer]:
    torch.manual_seed(0)
    model = Model(way)
    if frozen:
        model.visual.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    method = eq.OGM(0.8, modalities=["audio"]) if frozen else eq.OGM(0.8)
    encoders = {"audio": model.audio, "visual": model.visual}
    return model, eq.Balancer(method, model, encoders, "head", torch.optim.SGD(trained, lr=0.1))


def under(context: Callable[[], Any]) -> Callable[[eq.Balancer], None]:
    def read(balancer: eq.Balancer) -> None:
        a, v, _ = data()
        with context():
            balancer.unimodal_logits(a, v)

    return read


FIRST: dict[str, Callable[[eq.Balancer], Any]] = {
    "nothing": lambda balancer: None,
    "check": lambda balancer: balancer.check(data()),
    "a reading": under(torch.enable_grad),
    "a reading without gradients": under(torch.no_grad),
    "a reading in inference mode": under(torch.inference_mode),
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize(
    ("way", "frozen", "found"),
    [
        ("plain", False, True), ("plain", True, True), ("product", False, False),
        ("product", True, False), ("closed gate", False, False), ("closed gate", True, False),
    ],
)  # fmt: skip
def test_the_layout_does_not_depend_on_what_ran_first(
    way: str, frozen: bool, found: bool, first: str
) -> None:
    model, balancer = made(way, frozen)
    a, v, target = data()
    refused = pytest.raises(eq.MatchError, match="cannot tell which input of the head is which")
    with contextlib.nullcontext() if found else refused:
        FIRST[first](balancer)
        balancer.loss(model(a, v), target)
    layout = "audio from argument 0, visual from argument 1" if found else "None"
    assert str(balancer.attached.layout) == layout


def test_the_first_reading_leaves_no_trace_in_the_model() -> None:
    model, balancer = made("plain")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        model.eval()
        found = balancer.unimodal_logits(*data()[:2])
    assert not any(logits.requires_grad for logits in found.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    ran = model.forwards
    balancer.unimodal_logits(*data()[:2])
    assert model.forwards == ran + 1, "one forward each from now on"


def test_inputs_without_a_graph_in_inference_mode_are_refused() -> None:
    _, balancer = made("plain")
    with torch.inference_mode(), pytest.raises(eq.MatchError, match="inference_mode"):
        balancer.unimodal_logits(*(torch.randn_like(x) for x in data()[:2]))


def test_a_frozen_encoder_is_told_by_its_parameters_and_not_by_what_it_returned() -> None:
    class Cut(Model):
        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            logits: Tensor = self.head(self.audio(a), self.visual(v).detach())
            return logits

    model, balancer = made("plain")
    model.__class__ = Cut
    a, v, target = data()
    with pytest.raises(eq.MatchError, match="visual returned: was its feature detached"):
        balancer.loss(model(a, v), target)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_forward_decides_nothing(backend: str) -> None:
    torch._dynamo.reset()
    a, v, target = data()
    model, balancer = made("plain")
    compiled = torch.compile(model, backend=backend)
    balancer.check((a, v, target))
    balancer.loss(compiled(a, v), target)
    model, balancer = made("closed gate")
    compiled = torch.compile(model, backend=backend)
    with pytest.raises(eq.MatchError, match="does not show in a compiled forward"):
        balancer.loss(compiled(a, v), target)


def test_a_model_compiled_in_place_is_looked_at_outside_of_the_compiler() -> None:
    torch._dynamo.reset()
    a, v, target = data()
    model, balancer = made("plain")
    model.compile(backend="aot_eager")
    balancer.check((a, v, target))
    assert str(balancer.attached.layout) == "audio from argument 0, visual from argument 1"
    balancer.loss(model(a, v), target)
