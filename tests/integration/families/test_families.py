"""Public model families, each balanced by seven methods, against the loop that one writes by hand.

What is special about each is in its class, `support.families`; what a method is, in
`support.by_hand`. Nothing but the numbers of the balanced model is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import equimodal as eq
from support.by_hand import METHODS, STEPS, Loop
from support.families import (
    CrossModal,
    DualEncoder,
    Family,
    FiLM,
    Gated,
    ImagePairs,
    LowRankFusion,
    Queries,
    Recurrent,
    Segmentation,
    SelfSupervised,
    TensorFusion,
    VisionLanguage,
)
from support.users import changed_lines

FAMILIES: dict[str, Callable[[], Family]] = {
    "gated": Gated,
    "film": FiLM,
    "tensor fusion": TensorFusion,
    "low-rank fusion": LowRankFusion,
    "cross-modal attention, sequences first": CrossModal,
    "unimodal heads of one's own": SelfSupervised,
    "segmentation": Segmentation,
    "recurrent": Recurrent,
    "two images": ImagePairs,
    "vision and language": VisionLanguage,
    "queries": Queries,
    "dual encoder": DualEncoder,
}
REFUSED: dict[tuple[str, str], str] = {
    ("dual encoder", name): r"similarities of every sample.*take a method"
    for name in ("multi-loss", "ensemble", "mmpareto", "agm", "dgl")
}


def plain(model: Any, optimizer: torch.optim.Optimizer) -> None:
    for number in range(STEPS):
        inputs, target = model.batch(number)
        output = model(*inputs)
        loss = model.loss(model.logits(output), target) + model.own(output, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def balanced(model: Any, optimizer: torch.optim.Optimizer, method: eq.Method) -> None:
    balancer = eq.Balancer(method, model, model.encoders(), model.head(), optimizer, **model.settings())  # fmt: skip
    for number in range(STEPS):
        inputs, target = model.batch(number)
        output = model(*inputs)
        loss = balancer.loss(model.logits(output), target) + model.own(output, target)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()


def test_five_lines_are_changed() -> None:
    assert changed_lines(plain, balanced) <= 5


def trained(make: Callable[[], Family], method: eq.Method) -> nn.Module:
    torch.manual_seed(0)
    model = make().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    balanced(model, optimizer, method)
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_it_equals_the_loop_by_hand(name: str, method: str) -> None:
    make = FAMILIES[name]
    by_hand, of_ours = METHODS[method]
    if (name, method) in REFUSED:
        with pytest.raises((eq.SetupError, eq.MatchError), match=REFUSED[name, method]):
            trained(make, of_ours())
        return
    loop = Loop(make)
    truth = dict(loop.run(by_hand).named_parameters())
    for name_of, parameter in trained(make, of_ours()).named_parameters():
        torch.testing.assert_close(parameter, truth[name_of], rtol=1e-6, atol=1e-9, msg=name_of)
    if method in ("ogm", "ogm-ge", "agm"):
        assert len(loop.moved) > 2, "nothing was ever slowed"
