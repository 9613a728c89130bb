"""Leave a record on the autograd graph, and find it again from whatever was computed from it.

A record lives exactly as long as the graph it is attached to: an evaluation forward, a second
forward or a recomputed one leaves a record on a graph of its own, and nothing has to be cleaned up.
A record must not hold the tensor that it marks, nor one computed from it: the graph would then hold
itself, out of reach of the garbage collector.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from torch import Tensor

Edge = tuple[Any, int]


def mark(tensor: Tensor, key: object, record: object) -> None:
    """Attach a record to the node that produced the tensor (which must require a gradient)."""
    node: Any = tensor.grad_fn  # typed as if its metadata were a method
    node.metadata.setdefault(key, {})[tensor.output_nr] = record


def marked(tensor: Tensor, key: object) -> list[Any]:
    """Return the records under the key that are nearest upstream of the tensor, each once."""
    records: list[Any] = []
    seen = set()
    edges: list[tuple[Any, int]] = [(tensor.grad_fn, tensor.output_nr)]
    while edges:
        edge = edges.pop()
        node, output = edge
        if node is None or edge in seen:
            continue
        seen.add(edge)
        record = node.metadata.get(key, {}).get(output)
        if record is None:
            edges.extend(node.next_functions)
        elif all(record is not other for other in records):
            records.append(record)
    return records


def nearest(ends: Iterable[Tensor], edges: Container[Edge]) -> set[Edge]:
    """Return which of the edges are met first on the ways upstream from the tensors."""
    met, seen = set(), set()
    todo: list[Edge] = [(tensor.grad_fn, tensor.output_nr) for tensor in ends]
    while todo:
        edge = todo.pop()
        if edge[0] is None or edge in seen:
            continue
        seen.add(edge)
        if edge in edges:
            met.add(edge)
        else:
            todo.extend(edge[0].next_functions)
    return met


def parameters_behind(ends: Iterable[Tensor], stop: Iterable[Tensor] = ()) -> set[Tensor]:
    """Return the leaves that the tensors were computed from, not beyond where to stop."""
    stop = list(stop)
    stops = {(tensor.grad_fn, tensor.output_nr) for tensor in stop}
    found: set[Tensor] = set()
    seen = set(stops)
    todo: list[Edge] = [(tensor.grad_fn, tensor.output_nr) for tensor in ends]
    while todo:
        edge = todo.pop()
        if edge[0] is None or edge in seen:
            continue
        seen.add(edge)
        leaf = getattr(edge[0], "variable", None)
        if leaf is not None:
            found.add(leaf)
        todo.extend(edge[0].next_functions)
    return found - set(stop)


def ancestors(tensors: Iterable[Tensor]) -> set[Any]:
    """Return the nodes of the graph that these tensors were computed by."""
    seen: set[Any] = set()
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes.extend(following for following, _ in node.next_functions)
    return seen


def depends_on(tensor: Tensor, source: Tensor) -> bool:
    """Whether the tensor was computed from the source (or by the same compiled graph)."""
    if tensor is source:
        return True
    seen = set()
    nodes: list[Any] = [tensor.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if node is source.grad_fn:
            return True
        seen.add(node)
        nodes.extend(following for following, _ in node.next_functions)
    return False
