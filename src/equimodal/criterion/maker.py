"""Which operation made the user's outputs, by their autograd graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from equimodal.system.nodes import SINK, TURNING, operation, signed, sources, turned

Made = Literal["logits", "log-probabilities", "probabilities"]

# What only moves or copies numbers, or keeps probabilities from the ends of their range.
THROUGH = {
    "View", "UnsafeView", "Reshape", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias", "Clone",
    "ToCopy", "Select", "Slice", "Expand", "Clamp", "ClampMin", SINK, *TURNING,
}  # fmt: skip
LINEAR = {"Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Convolution", "Linear", "Addmv", "Mv"}


@dataclass(frozen=True)
class Maker:
    """The last operation that did more than move numbers.

    Attributes:
        operation: its name, for messages.
        kind: what it gives, None where that cannot be told.
        classes: the dimension of the outputs that it normalised; None for each number alone.
    """

    operation: str
    kind: Made | None = None
    classes: int | None = None


def maker(outputs: Tensor) -> Maker:
    """Return what made a tensor; `kind` is None where it has no graph, or one that hides it."""
    if torch.compiler.is_compiling() or outputs.grad_fn is None:
        return Maker("an operation that left no graph")
    return _made(outputs.grad_fn, outputs.output_nr)


def _made(node: Any, output: int) -> Maker:
    """Return what made one output of a node."""
    name = operation(node)
    kinds: dict[str, Made] = {"LogSoftmax": "log-probabilities", "Softmax": "probabilities"}
    if name in kinds:
        rank = len(_shape(node, 0) or ())
        return Maker(name, kinds[name], signed(node._saved_dim) % rank if rank else None)
    if name in ("Sigmoid", "LogSigmoid"):
        return Maker(name, "probabilities" if name == "Sigmoid" else "log-probabilities")
    if name in LINEAR:
        return Maker(f"a linear layer ({name})", "logits")
    if name not in THROUGH and name not in ("Log", "Exp"):
        return Maker(name)
    before, number = next(iter(sources(node, output)), (None, 0))
    if before is None:
        return Maker(name)
    made = _made(before, number)
    if name in ("Log", "Exp"):
        kinds_of: dict[tuple[str, Made | None], Made] = {
            ("Log", "probabilities"): "log-probabilities",
            ("Exp", "log-probabilities"): "probabilities",
        }
        kind = kinds_of.get((name, made.kind))
        return Maker(name) if kind is None else replace(made, kind=kind)
    if made.classes is None:
        return made
    moved = _moved(made.classes, _shape(before, number), _shape(node, output), node, name)
    return replace(made, classes=moved)


def _moved(
    dim: int, before: tuple[int, ...] | None, after: tuple[int, ...] | None, node: Any, name: str
) -> int | None:
    """Return where a dimension is after an operation; None where it is no more."""
    if before is None or after is None:
        return dim
    rank = len(before)
    if name in TURNING:
        return turned(node, rank).index(dim)
    tail = rank - dim
    if len(after) >= tail and after[len(after) - tail :] == before[dim:]:
        return len(after) - tail
    return dim if after[: dim + 1] == before[: dim + 1] else None


def _shape(node: Any, output: int) -> tuple[int, ...] | None:
    metadata = getattr(node, "_input_metadata", None)
    return tuple(metadata[output].shape) if metadata and output < len(metadata) else None
