"""No diagnostic of contributions leaves a trace, also not one that fails."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.contributions.robustness import robustness
from equimodal.diagnostics.contributions.shapley import shapley
from equimodal.diagnostics.contributions.subsets import subsets
from equimodal.diagnostics.outputs.agreement import agreement
from equimodal.diagnostics.outputs.calibration import calibration
from equimodal.diagnostics.subject import Subject
from support.subjects import data, loader_of

DIAGNOSTICS: dict[str, Callable[..., Any]] = {
    "subsets": subsets,
    "shapley": shapley,
    "shapley, sampled": lambda *given, **options: shapley(*given, **options, orders=4),
    "robustness": lambda *given, **options: robustness(
        *given, **options, corrupt={"none": lambda batch: batch}
    ),
    "agreement": agreement,
    "calibration": calibration,
}


class Trained(nn.Module):
    """BatchNorm and dropout in encoders and head; one encoder is frozen in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.audio, self.visual = (
                nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.3)) for _ in "ab"
            )
            self.head = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, 4))

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.audio(audio), self.visual(visual)], dim=1))
        return logits


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def state(model: nn.Module, loader: Any) -> list[Any]:
    return [
        copy.deepcopy(model.state_dict()),
        [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None],
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        random.getstate(),
        None if loader.generator is None else loader.generator.get_state(),
        torch.is_grad_enabled(),
    ]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(v, second[k]) for k, v in first.items())
    if isinstance(first, list):
        return all(same(*pair) for pair in zip(first, second, strict=True))
    return bool(first == second)


@pytest.fixture(params=[True, False], ids=["own generator", "global generator"])
def loader(request: pytest.FixtureRequest) -> Any:
    generator = torch.Generator().manual_seed(0) if request.param else None
    return loader_of(data(40, 2), 16, shuffle=True, generator=generator)


@pytest.fixture
def model(loader: Any) -> Trained:
    made = Trained()
    *inputs, target = next(iter(loader))
    nn.functional.cross_entropy(made(*inputs), target).backward()
    made.visual.eval()
    return made


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_all_is_as_before(name: str, model: Trained, loader: Any) -> None:
    before = state(model, loader)
    with Subject(model, {"audio": model.audio, "visual": model.visual}, model.head) as subject:
        attached = hooks(model)
        first = DIAGNOSTICS[name](subject, loader)
        assert same(state(model, loader), before)
        assert hooks(model) == attached
        assert first.to_dict() == DIAGNOSTICS[name](subject, loader).to_dict()
    assert hooks(model) == 0


@pytest.mark.parametrize("name", [n for n in DIAGNOSTICS if n not in ("agreement", "calibration")])
def test_all_is_as_before_when_it_fails(name: str, model: Trained, loader: Any) -> None:
    """Also while the exception is alive, which keeps the frames that it went through."""
    before = state(model, loader)
    times = []

    def fails(logits: Tensor, target: Tensor) -> Tensor:
        times.append(1)
        if len(times) > 20:
            raise RuntimeError("the user's metric")
        return logits.argmax(dim=1) == target

    with Subject(model, {"audio": model.audio, "visual": model.visual}, model.head) as subject:
        with pytest.raises(RuntimeError, match="the user's metric") as raised:
            DIAGNOSTICS[name](subject, loader, metric=fails)
        assert raised.tb is not None
        assert same(state(model, loader), before)
    assert hooks(model) == 0


def test_a_failing_model_leaves_no_trace(model: Trained, loader: Any) -> None:
    def fails(given: nn.Module, batch: Any) -> Any:
        raise RuntimeError("the user's forward")

    before = state(model, loader)
    encoders = {"audio": model.audio, "visual": model.visual}
    with Subject(model, encoders, model.head, forward=fails) as subject:
        with pytest.raises(RuntimeError, match="the user's forward") as raised:
            agreement(subject, loader)
        assert raised.tb is not None
        assert same(state(model, loader), before)


def test_a_head_that_is_refused_leaves_no_trace(model: Trained, loader: Any) -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn_like(x))

    model.head[2] = Noisy(12, 4)
    before = state(model, loader)
    with Subject(model, {"audio": model.audio, "visual": model.visual}, model.head) as subject:
        with pytest.raises(eq.MatchError, match="something random") as raised:
            subsets(subject, loader, fills=("zero",))
        assert raised.tb is not None
        assert same(state(model, loader), before)
