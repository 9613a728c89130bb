"""The optimizer of modules that belong to methods and probes, not to the user's model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.system import ranks
from equimodal.update.optimizers import another

Factory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def like(optimizers: Sequence[torch.optim.Optimizer]) -> Factory:
    """Return a factory of optimizers like the first of these that can train any module.

    Some take matrices alone, as Muon does. Where all of them do, it is AdamW, with the learning
    rate and the decay of the first.
    """
    leader = optimizers[0]
    for optimizer in optimizers:
        if _takes_vectors(optimizer):
            return functools.partial(another, optimizer)
    decay = leader.param_groups[0].get("weight_decay", 0.0)
    rate = leader.param_groups[0]["lr"]
    return functools.partial(torch.optim.AdamW, lr=rate, weight_decay=decay)


def leading(optimizers: Sequence[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """Return the optimizer whose learning rate modules of methods follow."""
    return next((each for each in optimizers if _takes_vectors(each)), optimizers[0])


def _takes_vectors(optimizer: torch.optim.Optimizer) -> bool:
    """Whether another of its class takes parameters of any shape, or none: then it says why."""
    matrix = [nn.Parameter(torch.zeros(2, 2))]
    return _makes(optimizer, [*matrix, nn.Parameter(torch.zeros(2))]) or not _makes(
        optimizer, matrix
    )


def _makes(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> bool:
    try:
        another(optimizer, parameters)
    except SetupError:
        return False
    return True


def rate(group: dict[str, Any]) -> float:
    """Return the learning rate of a group; where a schedule begins at 0, the one that it is of."""
    return float(group.get("initial_lr", group["lr"]))


class OwnOptimizer:
    """Trains modules of the balancer's own, in step with the user's optimizer.

    Its learning rate follows that of the group of the fusion head, whose work such modules do; else
    of the group that trains fastest. In fine-tuning the others are made for pretrained weights, and
    a new classifier would stand still at their rate. Gradients are averaged over ranks. Nothing of
    it enters the user's optimizer, scheduler or checkpoint.

    Args:
        leader: the user's optimizer.
        factory: makes the optimizer.
        head: the parameters of the fusion head.
    """

    def __init__(
        self,
        leader: torch.optim.Optimizer,
        factory: Factory,
        head: Iterable[nn.Parameter] = (),
    ) -> None:
        self.leader = leader
        self.factory = factory
        self.head = frozenset(head)
        groups = list(enumerate(leader.param_groups))
        of_head = [(n, g) for n, g in groups if not self.head.isdisjoint(g["params"])]
        training = [(n, g) for n, g in of_head if rate(g)] or groups
        self._group = max(training, key=lambda each: rate(each[1]))[0]  # the first of equals
        self.parameters: list[nn.Parameter] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self._spent = False

    def take(self, parameters: Iterable[nn.Parameter]) -> None:
        """Train these parameters from now on; none makes every call do nothing."""
        self.parameters = [p for p in parameters if p.requires_grad]
        if self.parameters:
            self.optimizer = self.factory(self.parameters)
            # A few small tensors: one call for all, where the rate is a number.
            number = not isinstance(self.leader.param_groups[self._group]["lr"], Tensor)
            for group in self.optimizer.param_groups:
                if number and group.get("foreach", False) is None and not group.get("fused"):
                    group["foreach"] = True
            train = getattr(self.optimizer, "train", None)
            if callable(train):  # one that evaluates other weights than it trains
                train()

    def before_backward(self) -> None:
        """Clear gradients that a step has used, or that were skipped."""
        if self._spent and self.optimizer is not None:
            self.optimizer.zero_grad()
        self._spent = False

    def clear(self) -> None:
        """Clear gradients whose loss was dropped."""
        for parameter in self.parameters:
            parameter.grad = None

    def prepare(
        self,
        scaler: torch.amp.GradScaler | None,
        group: torch.distributed.ProcessGroup | None,
        factor: Tensor | None = None,
    ) -> None:
        """Average the accumulated gradients over ranks and unscale them.

        Args:
            scaler: the gradient scaler, where one is used.
            group: ranks that train together.
            factor: what the user's loop has multiplied the model's gradients by, shape ``()``.
        """
        self._spent = True
        if self.optimizer is None:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if factor is not None and gradients:
            if scaler is not None:  # what it divides by is undone below, once for all
                factor = scaler.scale(factor)
            torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
        ranks.average_(gradients, group)
        self._scaler = scaler
        if scaler is not None and gradients:
            scaler.unscale_(self.optimizer)

    def step(self) -> None:
        """Step, once for every step of the user's optimizer."""
        if self.optimizer is None or all(p.grad is None for p in self.parameters):
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.leader.param_groups[self._group]["lr"]
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state; empty where there is nothing to train."""
        return {} if self.optimizer is None else self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state)
