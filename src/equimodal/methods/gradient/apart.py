"""Whether each encoder reaches the loss through its own feature alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from equimodal.modalities import Modalities
from equimodal.system.nodes import Edge, Node, operation, signed
from equimodal.update.reach import REENTRANT


def apart(features: Mapping[str, Tensor], modalities: Modalities) -> bool:
    """Whether every parameter behind a feature belongs to the encoder of that modality.

    Read off the graphs of this step: then the gradient of an encoder is that of its own modality's
    part of the logits, where these are a sum of such parts.

    Args:
        features: for each modality its feature, with its graph.
        modalities: the encoders.
    """
    for name, feature in features.items():
        own = {each.parameter for each in modalities.owned[name]}
        for node in _behind(feature):
            if operation(node) == REENTRANT or node.name().startswith("CompiledFunction"):
                return False  # neither shows what it leads to
            leaf = getattr(node, "variable", None)
            if isinstance(leaf, nn.Parameter) and leaf not in own:
                return False
    return True


def _behind(feature: Tensor) -> Iterator[Node]:
    """Yield the nodes that a feature was computed by, each once."""
    todo = [_source(feature.grad_fn)]
    seen: set[Node] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo.extend(edge[0] for edge in node.next_functions)


def _source(node: Node) -> Node:
    """Return the node of a feature; of one that was cut out of a join, that of what was joined."""
    if node is None or operation(node) != "Slice":
        return node
    ((join, _),) = node.next_functions
    if join is None or operation(join) != "Cat":
        return node
    cut: Any = node
    rank = len(cut._saved_self_sym_sizes)
    dim = signed(cut._saved_dim) % rank
    if signed(join._saved_dim) % rank != dim:
        return node
    return _joined(join, dim, (cut._saved_start, cut._saved_end), node)


def _joined(join: Node, dim: int, wanted: tuple[int, int], node: Node) -> Node:
    """Return the node of the piece that lies in a place of a join, or the one given if none does.

    Pieces without a gradient have no length in the graph: places are counted from the start up to
    the first of them, and from there on nothing is known.
    """
    start = 0
    edges: tuple[Edge, ...] = join.next_functions
    for source, output in edges:
        if source is None:
            return node
        end = start + source._input_metadata[output].shape[dim]
        if (start, end) == wanted:
            return source
        start = end
    return node
