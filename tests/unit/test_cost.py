"""What a training costs is counted: against sums by hand, whatever a method does in a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import equimodal as eq
from equimodal.testing import SmallModel, batch
from equimodal.training.cost import Spent, relative

INPUT = torch.randn(4, 3)


def plain(layer: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    F.cross_entropy(layer(INPUT), torch.zeros(4, dtype=torch.long)).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def layer() -> nn.Linear:
    return nn.Linear(3, 5)


def test_epochs_are_steps_times_what_a_step_takes(layer: nn.Linear) -> None:
    """A linear layer on (4, 3): forward and gradient of the weights, 2 x 4 x 3 x 5 each."""
    spent, optimizer = Spent(), torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        for _ in range(7):
            with spent.step():
                plain(layer, optimizer)
        layer(INPUT)  # outside: an evaluation
        with spent.between(), torch.no_grad():
            layer(INPUT)
        spent.end_epoch()
    forward = 2 * 4 * 3 * 5
    assert spent.operations == 3 * (7 * 2 * forward + forward)
    assert spent.epochs == 3
    spent.add(1000)
    assert spent.operations == 3 * 15 * forward + 1000


def test_what_happens_in_every_fifth_step_has_its_share(layer: nn.Linear) -> None:
    spent, number, truth = Spent(), 0, 0
    for _ in range(60):
        for _ in range(20):  # the first step of each epoch would always be one of the fifth ones
            again = number % 5 == 0
            with spent.step(), torch.no_grad():
                for _ in range(1 + again):
                    layer(INPUT)
            truth += 120 * (1 + again)
            number += 1
        spent.end_epoch()
    assert spent.operations == pytest.approx(truth, rel=0.05)


def test_an_epoch_that_ends_before_the_counted_step_is_as_the_one_before(layer: nn.Linear) -> None:
    spent = Spent()
    for steps in (10, 1, 0, 1, 1):
        for _ in range(steps):
            with spent.step(), torch.no_grad():
                layer(INPUT)
        spent.end_epoch()
    assert spent.operations == 13 * 120


def test_a_resumed_training_counts_the_same(layer: nn.Linear) -> None:
    def epochs(spent: Spent, numbers: Sequence[int]) -> None:
        for epoch in numbers:
            for step in range(6):
                with spent.step(), torch.no_grad():
                    for _ in range(1 + (step + epoch) % 3):
                        layer(INPUT)
            spent.end_epoch()

    whole, half, rest = Spent(), Spent(), Spent()
    epochs(whole, range(5))
    epochs(half, range(2))
    rest.load_state_dict(half.state_dict())
    epochs(rest, range(2, 5))
    assert rest.state_dict() == whole.state_dict()


def test_an_error_in_a_step_leaves_nothing(layer: nn.Linear) -> None:
    spent = Spent()
    with pytest.raises(RuntimeError, match="stop"), spent.step():
        raise RuntimeError("stop")
    before = spent.operations
    layer(INPUT)
    assert spent.operations == before == 0


def steps_of(method: eq.Method, spent: Spent | None) -> tuple[dict[str, Any], int]:
    """Take three steps; return the model, and all operations as torch counts them."""
    torch.manual_seed(0)
    model = SmallModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with eq.Balancer(method, model, model.encoders, model.head, optimizer, epochs=1) as balancer:

        def step() -> None:
            *inputs, target = batch(8, dtype=torch.float32)
            for _ in balancer.passes():
                balancer.backward(balancer.loss(model(*inputs), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()

        if spent is not None:
            for _ in range(3):
                with spent.step():
                    step()
            spent.end_epoch()
            return model.state_dict(), 0
        with FlopCounterMode(display=False) as counter:
            for _ in range(3):
                step()
    return model.state_dict(), counter.get_total_flops()


@pytest.mark.parametrize(
    "method", [eq.Joint(), eq.OGMGE(), eq.MMPareto(), eq.MASAM()], ids=lambda m: m.name
)
def test_a_counted_training_is_the_same_and_all_passes_count(method: eq.Method) -> None:
    spent = Spent()
    ours, _ = steps_of(method, spent)
    theirs, operations = steps_of(type(method)(), None)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert spent.operations == operations


def test_costs_are_relative_to_joint_training() -> None:
    assert relative([4.0, 8.0], [3.0, 3.0, None]) == 2.0
    assert relative([4.0, None], [0.0]) is None  # nothing was counted
    assert relative([], [3.0]) is None
    assert relative([4.0], []) is None
