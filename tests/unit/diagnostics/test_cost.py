"""Parameters and operations against counts by hand."""

from __future__ import annotations

import copy
import json
import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.encoders.cost import cost
from equimodal.diagnostics.subject import Subject
from support.subjects import Many, data


class Net(nn.Module):
    """A convolution applied twice, a linear layer, a head; one layer before, one tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(6, 6, bias=False)
        self.visual = nn.Conv2d(2, 3, 3, bias=False)
        self.text = nn.Linear(6, 5)
        self.tied = nn.Linear(6, 5, bias=False)
        self.head = Head()

    def forward(self, clip: Tensor, text: Tensor) -> Tensor:
        frames = self.visual(clip[:, 0]) + self.visual(clip[:, 1])
        return self.head(frames, self.text(self.before(text)))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, frames: Tensor, text: Tensor) -> Tensor:
        return self.linear(torch.cat([frames.mean(dim=(2, 3)), text], dim=1))


def batch(size: int = 7) -> tuple[Tensor, ...]:
    return torch.randn(size, 2, 2, 8, 9), torch.randn(size, 6), torch.zeros(size).long()


def test_parameters_and_operations_are_those_counted_by_hand() -> None:
    model = Net()
    model.tied.weight = model.text.weight
    features = {"visual": 0, "text": 1}
    with Subject(
        model, {"visual": model.visual, "text": model.text}, model.head, features=features
    ) as s:
        found = cost(s, [batch()])
    assert found.parameters == {"visual": 3 * 2 * 3 * 3, "text": 5}  # text: the bias is its own
    assert found.shared == 5 * 6
    assert found.head == 8 * 4 + 4
    assert found.rest == 6 * 6
    parts = [*found.parameters.values(), found.shared, found.head, found.rest]
    assert sum(parts) == sum(p.numel() for p in model.parameters())
    assert found.flops["visual"] == 2 * 2 * (3 * 2 * 3 * 3) * (6 * 7)  # both frames
    assert found.flops["text"] == 2 * 6 * 5
    assert found.flops_head == 2 * 8 * 4
    assert found.flops_rest == 2 * 6 * 6
    assert found.batch == 7
    assert found.seconds > 0
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_model_without_a_head_has_none() -> None:
    class Dual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(4, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.a(a) @ self.b(b).T

    model = Dual()
    with Subject(model, {"a": model.a, "b": model.b}, scores=eq.Ablation()) as subject:
        found = cost(subject, [(torch.randn(5, 3), torch.randn(5, 4), torch.arange(5))])
    assert found.head is None
    assert found.flops_head is None
    assert found.flops == {"a": 12, "b": 16}
    assert found.flops_rest == 2 * 5 * 5 * 2 / 5


def test_mistakes_are_refused() -> None:
    with Many(2).subject() as subject:
        with pytest.raises(eq.SetupError, match="the loader gave no batch"):
            cost(subject, [])
        with pytest.raises(eq.SetupError, match="repeats: expected 1 or more"):
            cost(subject, [data(8, 2)], repeats=0)


class Slow(torch.optim.SGD):
    """Takes as long for a step as one asks."""

    def step(self, closure: Any = None) -> None:
        time.sleep(0.02)
        super().step()


class Dropped(nn.Module):
    """BatchNorm and dropout, a frozen encoder, and a parameter that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.b = nn.Linear(3, 4).requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.a(a), self.b(b)], dim=1))
        return logits

    def subject(self, **settings: Any) -> Subject:
        return Subject(self, {"a": self.a, "b": self.b}, self.head, **settings)


def test_a_training_step_is_forward_backward_and_the_step_of_the_optimizer() -> None:
    passes = {"forward": 0, "backward": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            passes["forward"] += 1
            time.sleep(0.02)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            passes["backward"] += 1
            time.sleep(0.02)
            return grad

    model = Dropped()

    def forward(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return Counted.apply(model(*batch[:2])), batch[2]  # type: ignore[no-untyped-call]

    with model.subject(forward=forward) as subject:
        found = cost(subject, [data(8, 2)], optimizer=lambda ps: Slow(ps, 0.1), repeats=1)
    assert found.seconds_step is not None
    assert 0.02 <= found.seconds < found.seconds_step
    assert found.seconds_step >= 0.06
    assert passes["backward"] == 3  # two that are not timed
    assert found.untimed == ""


def test_a_training_step_changes_nothing_of_the_users() -> None:
    model = Dropped()
    model.b.eval()
    model.head.weight.grad = torch.ones(4, 8)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    random_state = torch.get_rng_state()
    with model.subject() as subject, torch.no_grad():
        found = cost(subject, [data(8, 2)])
    assert found.seconds_step is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {"head.weight"}
    assert torch.equal(model.head.weight.grad, torch.ones(4, 8))


def test_where_no_step_can_be_taken_it_is_said_and_the_rest_is_measured() -> None:
    model = Dropped()
    one = [tensor[:1] for tensor in data(8, 2)]  # BatchNorm cannot be trained on it
    with model.subject() as subject:
        found = cost(subject, [one])
    assert found.seconds_step is None
    assert "ValueError: Expected more than 1 value per channel" in found.untimed
    assert found.seconds > 0

    with model.subject(forward=lambda _, batch: (model(*batch[:2]), batch[2])) as subject:
        found = cost(subject, [data(8, 2)])  # it runs the model itself, not the one it is given
    assert (
        found.untimed == "no trained parameter of the model that forward= is given has a gradient"
    )
    assert all(parameter.grad is None for parameter in model.parameters())

    features = {"a": slice(0, 4), "b": slice(4, 8)}
    with model.requires_grad_(False).subject(features=features) as subject:
        assert cost(subject, [data(8, 2)]).untimed == "no parameter is trained"
    model.kept = threading.Lock()  # which cannot be copied
    with model.requires_grad_(True).subject() as subject:
        found = cost(subject, [data(8, 2)])
    assert found.untimed == "TypeError: cannot pickle '_thread.lock' object"
    json.dumps(found.to_dict(), allow_nan=False)
