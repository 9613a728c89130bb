"""Whether the logits that the user passed on are those that the head returned."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from equimodal.attach.call import Call

TRANSFORMED = (
    "the logits given to balancer.loss are not what the head returned, so running the head on "
    "other features does not give logits that compare: let the head include the last operations, "
    "or use scores that do not run it, such as eq.Probe()"
)
# What changes neither values nor their order. Under static_graph, DDP has a node of its own.
REARRANGING = {
    "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias", "Clone", "ToCopy",
    "_DDPSink",
}  # fmt: skip
PICKING = {"Select", "Slice", "Split", "SplitWithSizes", "Unbind"}  # where all elements are kept
TURNING = {"T", "Transpose", "Permute"}  # where no more than one dimension is longer than 1


def handed_on(logits: Tensor, call: Call, key: object, compiled: Tensor | None) -> bool:
    """Whether logits are the head's own, reshaped or cast at most, as the graph tells.

    Args:
        logits: what the user passed on.
        call: the forward of the head that led to them.
        key: of the records that this forward left on the graph.
        compiled: what the head returned in compiled code, which leaves no records.
    """
    if logits is compiled:
        return True
    if call.returned is None or logits.numel() != call.returned.numel():
        return False
    node: Any = logits.grad_fn
    output = logits.output_nr
    while node is not None:
        record = node.metadata.get(key, {}).get(output)
        if record is not None:
            return bool(record.inputs is call.inputs)
        if compiled is not None and (node, output) == (compiled.grad_fn, compiled.output_nr):
            return True
        sources = [edge for edge in node.next_functions if edge[0] is not None]
        if len(sources) != 1 or not _keeps(node):
            return False
        ((node, output),) = sources
    return False


def _keeps(node: Any) -> bool:
    kind = node.name().rpartition("::")[2].partition("Backward")[0]
    if kind in ("Mul", "Div"):  # by the number 1; this is looked at in every step
        other: Any = node._saved_other
        return bool(other is not None and other.ndim == 0 and other.is_cpu and other == 1)
    if kind in TURNING:
        shape = node._input_metadata[0].shape
        return bool(max(shape, default=1) == math.prod(shape))
    return kind in REARRANGING or kind in PICKING
