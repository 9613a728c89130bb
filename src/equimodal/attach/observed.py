"""Which of several calls of the head, in one observed forward, led to what was returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equimodal.attach.call import Call
from equimodal.attach.features import tensors
from equimodal.attach.graph import depends_on
from equimodal.errors import MatchError

Seen = tuple[Call, Any]


def leading(observed: Sequence[Seen], given: Any) -> Seen | None:
    """Return the call of the head that led to what the model returned, None where nothing tells.

    Args:
        observed: calls of the head, and what each returned.
        given: what the model returned.
    """
    if len(observed) == 1:
        return observed[0]
    ends = [tensor for _, tensor in tensors(given)]
    leaves = [[leaf for _, leaf in tensors(output)] for _, output in observed]
    same = [any(leaf is end for leaf in of for end in ends) for of in leaves]
    if not any(same):
        same = [any(depends_on(end, leaf) for leaf in of for end in ends) for of in leaves]
    return observed[same.index(True)] if sum(same) == 1 else None


def refuse_several(count: int) -> MatchError:
    """Return what to raise where nothing tells which call of the head is meant."""
    return MatchError(
        f"the head ran {count} times in this forward, and which of them gave the logits does not "
        "show: let the model return the logits of one call alone, or give the other call a module "
        "of its own; balancer.check takes them from forward= of eq.Balancer(...)"
    )
