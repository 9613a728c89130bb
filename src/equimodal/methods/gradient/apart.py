"""Whether each encoder reaches the loss through its own feature alone."""

from __future__ import annotations

import itertools
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
    todo = [source((feature.grad_fn, feature.output_nr))[0]]
    seen: set[Node] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo.extend(edge[0] for edge in node.next_functions)


def source(edge: Edge) -> Edge:
    """Return the edge of a feature; of one that was cut out of a join, that of what was joined."""
    node: Any = edge[0]
    if node is None or operation(node) != "Slice":
        return edge
    ((join, _),) = node.next_functions
    if join is None or operation(join) != "Cat":
        return edge
    sizes = node._saved_self_sym_sizes
    dim = signed(node._saved_dim) % len(sizes)
    if signed(join._saved_dim) % len(sizes) != dim:
        return edge
    return _joined(join, dim, sizes[dim]).get((node._saved_start, node._saved_end), edge)


def _joined(join: Node, dim: int, length: int) -> dict[tuple[int, int], Edge]:
    """Return the edges of the tensors in a join, by where they begin and end.

    A tensor without a gradient has no length in the graph: that of a single one is what is left.
    """
    edges: tuple[Edge, ...] = join.next_functions
    lengths = [None if of is None else of._input_metadata[nr].shape[dim] for of, nr in edges]
    left = length - sum(known for known in lengths if known is not None)
    if lengths.count(None) > 1:
        return {}
    ends = list(itertools.accumulate(left if known is None else known for known in lengths))
    places = zip([0, *ends], ends, strict=False)
    return dict(zip(places, edges, strict=True))
