"""What encoders led to beside the features: it would stay in place when a modality is asked alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq

Head = Callable[[Any, Tensor, Tensor], Tensor]


class Fusing(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 3)

    def forward(self, *given: Any, **named: Any) -> Tensor:
        first = given[0] if given else named
        parts = [*first.values(), *given[1:]] if isinstance(first, dict) else [*given]
        return self.out(torch.cat(parts, dim=1))  # type: ignore[no-any-return]


BESIDE: dict[str, tuple[int, Head]] = {
    "a product": (24, lambda head, a, v: head(a, v, a * v)),
    "the sum and a summand": (16, lambda head, a, v: head(a + v, v)),
    "a concatenation and one of it": (24, lambda head, a, v: head(torch.cat([a, v], 1), a)),
    "a concatenation and a product": (24, lambda head, a, v: head(torch.cat([a, v], 1), a * v)),
    "a third entry": (24, lambda head, a, v: head({"audio": a, "video": v, "both": a - v})),
    "an argument after named ones": (24, lambda head, a, v: head({"audio": a, "video": v}, v)),
    "a third keyword": (24, lambda head, a, v: head(audio=a, video=v, gate=a.sigmoid())),
}
ALONE: dict[str, tuple[int, Head]] = {
    "a constant": (24, lambda head, a, v: head(a, v, torch.ones_like(a))),
    "a mask of the batch": (
        24, lambda head, a, v: head({"audio": a, "video": v, "mask": torch.zeros_like(a)})
    ),
}  # fmt: skip


class Model(nn.Module):
    def __init__(self, width: int, head: Head) -> None:
        super().__init__()
        self.audio, self.video, self.head = nn.Linear(4, 8), nn.Linear(5, 8), Fusing(width)
        self.run = head

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.run(self.head, self.audio(a), self.video(v))


def step(width: int, run: Head, compiled: bool = False, **settings: Any) -> eq.Balancer:
    torch.manual_seed(0)
    model = Model(width, run)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "video": model.video}
    settings = {"head": model.head, **settings}
    balancer = eq.Balancer(eq.OGM(0.8), model, encoders, optimizer=optimizer, **settings)
    forward = torch.compile(model, backend="aot_eager") if compiled else model
    loss = balancer.loss(forward(torch.randn(6, 4), torch.randn(6, 5)), torch.arange(6) % 3)
    balancer.backward(loss)
    balancer.modulate()
    return balancer


@pytest.mark.parametrize("name", BESIDE)
def test_it_is_refused_unless_the_whole_model_is_asked(name: str) -> None:
    with pytest.raises(eq.MatchError, match=r"head=None"):
        step(*BESIDE[name])
    assert step(*BESIDE[name], head=None).metrics()["coefficient/audio"] <= 1


@pytest.mark.parametrize("name", ["a product", "a third entry", "an argument after named ones"])
def test_it_is_refused_too_where_the_first_forward_is_compiled(name: str) -> None:
    with pytest.raises(eq.MatchError, match=r"before compiling"):
        step(*BESIDE[name], compiled=True)


@pytest.mark.parametrize("name", ALONE)
def test_what_no_encoder_led_to_is_none_of_ours_in_compiled_code(name: str) -> None:
    assert step(*ALONE[name], compiled=True).metrics()["coefficient/audio"] <= 1


@pytest.mark.parametrize("name", ALONE)
def test_what_no_encoder_led_to_is_none_of_ours(name: str) -> None:
    assert step(*ALONE[name]).metrics()["coefficient/audio"] <= 1


class Telling(Fusing):
    """Has a classifier for each modality, and so says itself what each does alone."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.own = nn.ModuleDict({"audio": nn.Linear(8, 3), "video": nn.Linear(8, 3)})

    def unimodal_logits(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.own[name](features[name]) for name in self.own}


def telling() -> tuple[Model, dict[str, nn.Module], torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Model(*BESIDE["a third keyword"])
    model.head = Telling(24)
    encoders = {"audio": model.audio, "video": model.video}
    return model, encoders, torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_head_that_tells_is_asked_and_given_what_it_likes() -> None:
    model, encoders, optimizer = telling()
    balancer = eq.Balancer(eq.OGM(0.8), model, encoders, model.head, optimizer)
    inputs, target = (torch.randn(6, 4), torch.randn(6, 5)), torch.arange(6) % 3
    balancer.backward(balancer.loss(model(*inputs), target))
    balancer.modulate()
    features = {"audio": model.audio(inputs[0]), "video": model.video(inputs[1])}
    for name, logits in model.head.unimodal_logits(features).items():
        score = logits.softmax(1)[range(6), target].mean()
        torch.testing.assert_close(balancer.metrics()[f"evidence/{name}"], score.item())


def test_a_head_that_tells_is_not_run_on_other_features() -> None:
    model, encoders, optimizer = telling()
    balancer = eq.Balancer(
        eq.OGM(0.8), model, encoders, model.head, optimizer, scores=eq.Ablation()
    )
    with pytest.raises(eq.MatchError, match=r"keyword gate of the head.*computed from audio too"):
        balancer.loss(model(torch.randn(6, 4), torch.randn(6, 5)), torch.arange(6) % 3)
