"""Parameters and operations against counts by hand."""

from __future__ import annotations

import json

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
