"""What a node of torch's autograd graph tells of the operation that it stands for."""

from __future__ import annotations

import functools
import re
from typing import Any

Node = Any  # which has no public type
Edge = tuple[Node, int]  # a node, and which of its outputs

SINK = "_DDPSink"  # DistributedDataParallel lays it over all outputs of the model at once
TURNING = {"T", "Transpose", "Permute"}


def operation(node: Node) -> str:
    """Return the name of the operation, as "LogSoftmax"."""
    return _named(node.name())


@functools.cache  # graphs are walked in every step, and have few kinds of nodes
def _named(node: str) -> str:
    return re.sub(r"Backward\d*$", "", node.rpartition("::")[2])


def sources(node: Node, output: int) -> tuple[Edge, ...]:
    """Return the edges that lead on to one output of a node.

    They are those of all its inputs, but for the sink, which hands every output on by itself.
    """
    edges: tuple[Edge, ...] = node.next_functions
    if operation(node) != SINK:
        return edges
    place = len(edges) - len(node._input_metadata) + output
    return edges[place : place + 1] if place >= 0 else ()


def turned(node: Node, rank: int) -> list[int]:
    """Return for each dimension where it was before an operation that exchanges some.

    Args:
        node: of an operation in `TURNING`.
        rank: number of dimensions.
    """
    places = list(range(rank))
    name = operation(node)
    if name == "Permute":
        return [signed(dim) % rank for dim in node._saved_dims]
    pair = (0, 1) if name == "T" else (node._saved_dim0, node._saved_dim1)
    first, second = (signed(dim) % rank for dim in pair)
    places[first], places[second] = second, first
    return places


def signed(dim: int) -> int:
    """Return a dimension that the graph keeps as an unsigned number."""
    return dim - 2**64 if dim >= 2**63 else dim
