"""What copies and pickles of a balanced model carry: nothing of the balancer."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from equimodal.attach.features import tensors
from equimodal.errors import SetupError


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
