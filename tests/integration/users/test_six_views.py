"""Six views of handwritten digits (mfeat), one MLP for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal import data
from support import slow
from support.users import (
    assert_equals_the_loop_by_hand,
    assert_evidence_moves,
    assert_no_trace,
    changed_lines,
    probabilities,
)

WIDTHS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
Batches = Sequence[tuple[Tensor, ...]]


class SixViews(nn.Module):
    def __init__(self, hidden: int = 12) -> None:
        super().__init__()
        self.views = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
                for name, width in WIDTHS.items()
            }
        )
        self.classifier = nn.Linear(hidden * len(WIDTHS), 10)

    def forward(self, *views: Tensor) -> Tensor:
        features = [mlp(x) for mlp, x in zip(self.views.values(), views, strict=True)]
        return self.classifier(torch.cat(features, dim=1))


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
    for *views, digit in batches:
        loss = F.cross_entropy(model(*views), digit)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def balanced(
    model: SixViews, optimizer: torch.optim.Optimizer, batches: Batches
) -> Iterator[eq.Balancer]:
    balancer = eq.Balancer(eq.OGM(alpha=0.8), model, model.views, model.classifier, optimizer)
    for *views, digit in batches:
        loss = balancer.loss(model(*views), digit)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        yield balancer


def by_hand(model: Any, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
    *views, digit = batch
    loss = F.cross_entropy(model(*views), digit)
    weight, bias = model.classifier.weight, model.classifier.bias
    scores = {}
    for index, (name, view) in enumerate(zip(WIDTHS, views, strict=True)):
        z = model.views[name](view)
        width = z.shape[1]
        unimodal = z @ weight[:, index * width : (index + 1) * width].T + bias / 6
        scores[name] = probabilities(unimodal, digit)
    return loss, scores


def make() -> tuple[SixViews, Batches]:
    torch.manual_seed(0)
    loader = data.load("mfeat").train.loader(batch_size=100, shuffle=True)
    return SixViews().double(), [
        (*(view.double() for view in views), digit) for *views, digit in loader
    ]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)


def test_at_most_five_lines_change() -> None:
    assert changed_lines(plain, balanced) <= 5


def test_equals_the_loop_by_hand_and_evidence_moves() -> None:
    model, batches = make()
    encoders = {name: [f"views.{name}"] for name in WIDTHS}
    metrics = assert_equals_the_loop_by_hand(model, sgd, batches, balanced, by_hand, encoders)
    assert_evidence_moves(metrics, list(WIDTHS))
    throttled = [sum(step[f"coefficient/{name}"] < 1 for name in WIDTHS) for step in metrics]
    assert max(throttled) > 1, "each that is ahead of the mean of the others"


def test_check_and_no_trace() -> None:
    model, batches = make()
    keys = list(model.state_dict())
    balancer = next(iter(balanced(model, sgd(model), batches)))
    found = str(balancer.check(batches[0]))
    for part in ["fac  Sequential", "zer 60:72 of argument 0", "Split", "logits  (100, 10)"]:
        assert part in found, found
    assert_no_trace(model, balancer, keys)


def test_the_counter_of_changed_lines_can_fail() -> None:
    def longer(model: SixViews, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
        settings = {"alpha": 0.8}
        balancer = eq.Balancer(eq.OGM(**settings), model, model.views, "classifier", optimizer)
        for *views, digit in balancer.batches(batches):
            loss = balancer.loss(model(*views), digit)
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()

    assert changed_lines(plain, balanced) == 5
    assert changed_lines(plain, longer) == 8


@pytest.mark.parametrize("wrong", ["coefficient", "everywhere"])
def test_the_comparison_by_hand_can_fail(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = make()
    encoders = {name: [f"views.{name}"] for name in WIDTHS}
    if wrong == "coefficient":
        twin: Callable[..., float] = slow.continuous
        monkeypatch.setattr(slow, "thresholded", twin)
    else:
        encoders["fac"] = ["views.fac", "classifier"]
    with pytest.raises(AssertionError):
        assert_equals_the_loop_by_hand(model, sgd, batches, balanced, by_hand, encoders)
