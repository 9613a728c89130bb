"""Parameters that a method steps itself are stepped there, and nowhere else."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.epochs.run import Run
from equimodal.update.substeps import SubSteps
from support.worlds import World, batch, train, weights


class Twice(eq.Method):
    """Steps one layer twice in every step by a gradient of ones, and lets another be stepped."""

    name = "twice"

    def __init__(self) -> None:
        super().__init__()
        self.mine = nn.Linear(2, 2, bias=False)
        self.balancers = nn.Parameter(torch.ones(2))
        nn.init.zeros_(self.mine.weight)

    def equip(self, steps: SubSteps) -> None:
        steps.take(self.mine.parameters())
        self._steps = steps

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        for _ in range(2):
            self._steps.step([torch.ones(2, 2)])
        return {"square": self.balancers.square().sum()}

    def end_epoch(self, run: Run) -> None:
        run.forget(self.parameters())
        run.forget(owned.parameter for owned in run.parameters("audio"))

    def get_extra_state(self) -> dict[str, Any]:
        return self._steps.state_dict() if hasattr(self, "_steps") else {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._steps.load_state_dict(state)


def stepped(times: int, lr: float = 0.1) -> Tensor:
    """The user's optimizer by hand: momentum 0.9 and weight decay 1e-2."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([parameter], lr=lr, momentum=0.9, weight_decay=1e-2)
    for _ in range(times):
        parameter.grad = torch.ones(2, 2)
        optimizer.step()
    return parameter.detach()


def test_sub_steps_are_those_of_an_optimizer_like_the_users() -> None:
    world, method = World(), Twice()
    balancer = world.balance(method)
    train(balancer, [batch(), batch(seed=2)])
    torch.testing.assert_close(method.mine.weight.detach(), stepped(4))
    assert balancer.own.parameters == [method.balancers]
    assert method.mine.weight.grad is None
    assert (method.balancers < 1).all()


def test_the_learning_rate_follows() -> None:
    world, method = World(), Twice()
    balancer = world.balance(method)
    world.optimizer.param_groups[0]["lr"] = 0.02
    train(balancer, [batch()])
    torch.testing.assert_close(method.mine.weight.detach(), stepped(2, lr=0.02))


def test_their_state_is_the_methods_to_keep() -> None:
    world, method = World(), Twice()
    balancer = world.balance(method)
    train(balancer, [batch()])
    other = Twice()
    resumed = World().balance(other)
    resumed.load_state_dict(copy.deepcopy(balancer.state_dict()))
    train(resumed, [batch(seed=2)])
    torch.testing.assert_close(other.mine.weight.detach(), stepped(4))


def test_an_epochs_end_forgets_what_it_is_asked_to() -> None:
    world, method = World(), Twice()
    balancer = world.balance(method)
    train(balancer, [batch()])
    assert balancer.own.optimizer is not None
    assert method.balancers in balancer.own.optimizer.state
    before = weights(world.model)
    balancer.end_epoch()
    assert method.balancers not in balancer.own.optimizer.state
    left = {p for n, p in world.model.named_parameters() if ".audio." not in n}
    assert set(world.optimizer.state) == left
    assert torch.equal(weights(world.model), before)
