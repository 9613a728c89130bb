"""Steps that a method takes itself, several within one step of the user's optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equimodal.system import ranks
from equimodal.update.own import OwnOptimizer


class SubSteps:
    """An optimizer like the user's, of parameters that a method steps itself in `objective`.

    Its learning rate follows the user's at every sub-step. The method keeps its state: return
    `state_dict` from `get_extra_state`.

    Args:
        own: the balancer's optimizer of methods' modules, which this one is made like.
        group: ranks that train together.
    """

    def __init__(self, own: OwnOptimizer, group: dist.ProcessGroup | None) -> None:
        self._own = OwnOptimizer(own.leader, own.factory, own.head)
        self._group = group

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are stepped here, and nowhere else."""
        return self._own.parameters

    def take(self, parameters: Iterable[nn.Parameter]) -> None:
        """Train these parameters from now on."""
        self._own.take(parameters)

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks."""
        ranks.average_(tensors, self._group)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Step once with these gradients, one for each parameter, the same on every rank."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        self._own.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state; empty before there is anything to train."""
        return self._own.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            self._own.load_state_dict(state)
