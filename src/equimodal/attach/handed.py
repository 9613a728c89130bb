"""How what the user passed on follows from what the head returned."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from equimodal.attach.call import Call
from equimodal.system.nodes import SINK, TURNING, operation, sources, turned

TRANSFORMED = (
    "the logits given to balancer.loss are not what the head returned, so running the head on "
    "other features does not give logits that compare: let the head include the last operations, "
    "pass head=None, or use scores that do not run it, such as eq.Probe()"
)
# What changes neither values nor their order. Under static_graph, DDP has a node of its own.
REARRANGING = {
    "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias", "Clone", "ToCopy",
    SINK,
}  # fmt: skip
PICKING = {"Select", "Slice", "Split", "SplitWithSizes", "Unbind"}  # where all elements are kept
KEEPING_OFF = {"Clamp", "ClampMin", "ClampMax"}  # probabilities, from the ends of their range

Handed = Literal["as it is", "linked", "otherwise"]


def handed_on(
    logits: Tensor, call: Call, key: object, compiled: Tensor | None, link: str | None = None
) -> Handed:
    """Return how the user's outputs follow from what the head returned, as the graph tells.

    As it is: reshaped or cast at most. Linked: by one more operation, which makes what the
    criterion takes of logits.

    Args:
        logits: what the user passed on.
        call: the forward of the head that led to them.
        key: of the records that this forward left on the graph.
        compiled: what the head returned in compiled code, which leaves no records.
        link: the operation that makes the criterion's outputs of logits, None where it takes these.
    """
    if logits is compiled:
        return "as it is"
    if call.returned is None or logits.numel() != call.returned:
        return "otherwise"
    node: Any = logits.grad_fn
    output = logits.output_nr
    found: Handed = "as it is"
    order = list(range(sum(size > 1 for size in logits.shape)))  # what is turned must turn back
    while node is not None:
        record = node.metadata.get(key, {}).get(output)
        if record is not None:
            ours = record.inputs is call.inputs and order == sorted(order)
            return found if ours else "otherwise"
        if compiled is not None and (node, output) == (compiled.grad_fn, compiled.output_nr):
            return found
        edges = [edge for edge in sources(node, output) if edge[0] is not None]
        kind = operation(node)
        if link is not None and kind == link and found == "as it is":
            found = "linked"
        elif kind in TURNING and len(edges) == 1:
            order = _turned(order, node)
        elif link is not None and found == "as it is" and kind in KEEPING_OFF:
            pass
        elif len(edges) != 1 or not _keeps(node, kind) or (order != sorted(order) and kind != SINK):
            return "otherwise"
        ((node, output),) = edges
    return "otherwise"


def _turned(order: list[int], node: Any) -> list[int]:
    """Return where each dimension was before a node that exchanges some; of length 1 none counts.

    Args:
        order: where each dimension is after it.
        node: of the graph.
    """
    shape = node._input_metadata[0].shape  # of what it returned
    places = zip(turned(node, len(shape)), shape, strict=True)
    long = [place for place, size in places if size > 1]
    among = [sorted(long).index(place) for place in long]
    return [among[dim] for dim in order] if len(among) == len(order) else [-1]


def _keeps(node: Any, kind: str) -> bool:
    if kind in ("Mul", "Div"):  # by the number 1; this is looked at in every step
        other: Any = node._saved_other
        return bool(other is not None and other.ndim == 0 and other.is_cpu and other == 1)
    return kind in REARRANGING or kind in PICKING
