"""Inference by a method's own rule, as a module that needs no equimodal to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from equimodal.attach.features import tensors
from equimodal.errors import SetupError

if TYPE_CHECKING:
    from equimodal.balancer import Balancer


class Predictor(nn.Module):
    """Predicts as `Balancer.predict` does; what `torch.export` traces."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self.model = balancer.attached.bare_model
        self.methods = nn.ModuleList(balancer.methods.methods)
        self._predict = balancer.predict

    def forward(self, *inputs: Any) -> Tensor:
        """Return logits for one batch of inputs."""
        return self._predict(*inputs)  # type: ignore[no-any-return]


class Copied:
    """Stands in copies and pickles of what holds a balancer: it is attached to no model.

    A balancer is of one model, one optimizer and one run, and these are not what is copied.
    """

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # what `copy` and `pickle` ask for
            raise AttributeError(name)
        raise SetupError(
            f"balancer.{name}: this is a copy of what held a balancer, and a balancer is attached "
            "to one model: make another for the copy, eq.Balancer(...), and give it "
            "load_state_dict(original.state_dict()) to go on"
        )


def of_a_copy(balancer: object) -> tuple[Any, ...]:
    """Return how `copy` and `pickle` make what stands for a balancer: its `__reduce__`."""
    return Copied, ()


def without_graphs(model: nn.Module) -> dict[int, Any]:
    """Return a memo for `copy.deepcopy`, by which features that a model keeps lose their graph.

    A model that holds on to a feature of its latest forward has a tensor that torch does not copy.
    """
    kept = [value for part in model.modules() for value in (*vars(part).values(), part._buffers)]
    found = [t for value in kept for _, t in tensors(value) if not t.is_leaf]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in found}
    return memo


def exported(balancer: Balancer, inputs: tuple[Any, ...]) -> nn.Module:
    """Return a traced module of plain torch operations, for any batch size above 1.

    Args:
        balancer: whose `predict` to trace, with the model in evaluation mode.
        inputs: one batch of the model's inputs, with at least 2 samples.
    """
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: batch} if isinstance(x, Tensor) and x.ndim else None for x in inputs)
    with torch.no_grad():
        balancer.predict(*inputs)  # what is found out at a first call cannot be traced
        program = torch.export.export(
            Predictor(balancer), inputs, dynamic_shapes={"inputs": dynamic}, strict=False
        )
    return program.module()
