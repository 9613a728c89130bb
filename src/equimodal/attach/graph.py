"""Leave a record on the autograd graph, and find it again from whatever was computed from it.

A record lives exactly as long as the graph it is attached to: an evaluation forward, a second
forward or a recomputed one leaves a record on a graph of its own, and nothing has to be cleaned up.
A record must not hold the tensor that it marks, nor one computed from it: the graph would then hold
itself, out of reach of the garbage collector.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

from torch import Tensor

from equimodal.system.nodes import Edge


def mark(tensor: Tensor, key: object, record: object) -> None:
    """Attach a record to the node that produced the tensor (which must require a gradient)."""
    node: Any = tensor.grad_fn  # typed as if its metadata were a method
    node.metadata.setdefault(key, {})[tensor.output_nr] = record


def upstream(
    tensors: Iterable[Tensor], stops: Callable[[Edge], object] = lambda edge: False
) -> Iterator[Edge]:
    """Yield every edge upstream of the tensors, each once.

    Args:
        tensors: with their graph; their own edges are yielded too.
        stops: whether to go no further than an edge.
    """
    seen: set[Edge] = set()
    todo: list[Edge] = [(tensor.grad_fn, tensor.output_nr) for tensor in tensors]
    while todo:
        edge = todo.pop()
        if edge[0] is None or edge in seen:
            continue
        seen.add(edge)
        yield edge
        if not stops(edge):
            todo.extend(edge[0].next_functions)


def marked(tensor: Tensor, key: object) -> list[Any]:
    """Return the records under the key that are nearest upstream of the tensor, each once."""

    def record(edge: Edge) -> Any:
        node, output = edge
        return node.metadata.get(key, {}).get(output)

    records: list[Any] = []
    for edge in upstream([tensor], lambda edge: record(edge) is not None):
        found = record(edge)
        if found is not None and all(found is not other for other in records):
            records.append(found)
    return records


def nearest(ends: Iterable[Tensor], edges: Container[Edge]) -> set[Edge]:
    """Return which of the edges are met first on the ways upstream from the tensors."""
    return {edge for edge in upstream(ends, lambda edge: edge in edges) if edge in edges}


def parameters_behind(ends: Iterable[Tensor], stop: Iterable[Tensor] = ()) -> set[Tensor]:
    """Return the leaves that the tensors were computed from, not beyond where to stop."""
    stop = list(stop)
    stops = {(tensor.grad_fn, tensor.output_nr) for tensor in stop}
    leaves = (getattr(node, "variable", None) for node, _ in upstream(ends, stops.__contains__))
    return {leaf for leaf in leaves if leaf is not None} - set(stop)


def ancestors(tensors: Iterable[Tensor]) -> set[Any]:
    """Return the nodes of the graph that these tensors were computed by."""
    return {node for node, _ in upstream(tensors)}


def depends_on(tensor: Tensor, source: Tensor) -> bool:
    """Whether the tensor was computed from the source (or by the same compiled graph)."""
    return tensor is source or any(node is source.grad_fn for node, _ in upstream([tensor]))
