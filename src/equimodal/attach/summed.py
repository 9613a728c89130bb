"""A head on a plain sum of features that `forward` wrote down."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from equimodal.attach.features import Features, Inputs, Path, replaced, spell, tensors
from equimodal.errors import MatchError


@dataclass(frozen=True)
class Summed:
    """One tensor is the sum of what the encoders returned.

    The sum does not hold the features: they are read from the encoders' outputs, which stand beside
    the head's arguments under `SUMMANDS`.
    """

    path: Path
    names: tuple[str, ...]

    @property
    def places(self) -> list[Path]:
        """Where the features are among the inputs."""
        return [self.path]

    def __str__(self) -> str:
        return f"{' + '.join(self.names)} as {spell(self.path)}"

    def read(self, inputs: Inputs) -> Features:
        """Return the feature of every modality."""
        return dict(inputs[1][SUMMANDS])

    def write(self, inputs: Inputs, features: Mapping[str, Tensor]) -> Inputs:
        """Return inputs that hold the sum of these features instead."""
        args, kwargs = inputs
        plain: Inputs = (args, {k: v for k, v in kwargs.items() if k != SUMMANDS})
        total = reduce(operator.add, (features[name] for name in self.names))
        written: Inputs = replaced(plain, self.path, total)
        return written


SUMMANDS = "equimodal.summands"  # no keyword of anyone's: it holds a dot


def with_summands(inputs: Inputs, outputs: Mapping[str, list[Tensor]]) -> Inputs:
    """Return the head's arguments with the encoders' outputs beside them.

    Raises:
        MatchError: there is not one output of each.
    """
    for name, of in outputs.items():
        if len(of) != 1:
            raise MatchError(
                f"the head takes a sum of features, and the encoder of {name} returned {len(of)} "
                "tensors in this forward, not one: let it run once in every forward"
            )
    return inputs[0], {**inputs[1], SUMMANDS: {name: of[0] for name, of in outputs.items()}}


def find_sum(inputs: Inputs, outputs: Mapping[str, list[Tensor]]) -> Summed | None:
    """Find a tensor that is the unscaled sum of one output of each encoder, by the graph.

    An encoder whose output carries no gradient leaves no trace: then the values decide.
    """
    if any(len(of) != 1 for of in outputs.values()):
        return None
    single = {name: of[0] for name, of in outputs.items()}
    for path, tensor in tensors(inputs):
        names = _summands(tensor, single)
        if names is not None:
            layout = Summed(path, tuple(names))
            rebuilt = dict(tensors(layout.write(with_summands(inputs, outputs), single)))[path]
            if rebuilt.shape == tensor.shape and torch.allclose(
                rebuilt, tensor, rtol=1e-4, atol=1e-6, equal_nan=True
            ):
                return layout
    return None


def _summands(tensor: Tensor, outputs: Mapping[str, Tensor]) -> list[str] | None:
    where: dict[Any, str] = {
        (output.grad_fn, output.output_nr): name
        for name, output in outputs.items()
        if output.grad_fn is not None
    }
    silent = [name for name, output in outputs.items() if not output.requires_grad]
    found: list[str] = []
    todo: list[Any] = [(tensor.grad_fn, tensor.output_nr)]
    while todo:
        edge = todo.pop()
        node = edge[0]
        if edge in where:
            found.append(where[edge])
        elif node is None and len(silent) == 1:
            found.append(silent[0])
        elif (
            node is not None
            and node.name().startswith("AddBackward")
            and getattr(node, "_saved_alpha", 1) == 1
        ):
            todo.extend(reversed(node.next_functions))
        else:
            return None
    plain = len(found) > 1 and sorted(found) == sorted(outputs)
    return found if plain else None
