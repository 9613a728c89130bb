"""Which parameters a loss leads to, read from its graph before it is backpropagated."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from equimodal.system.nodes import SINK, Edge, Node, operation, sources

REENTRANT = "CheckpointFunction"  # it recomputes parameters that the graph does not show


@dataclass
class Reached:
    """What a loss leads to.

    Attributes:
        surely: parameters that a walk over single operations comes to.
        within: those that only compiled code leads to, of which it is not seen which outputs
            depend on which parameters.
        hidden: whether something is recomputed in the backward pass, by reentrant checkpointing,
            so that its parameters are not seen at all.
    """

    surely: set[nn.Parameter] = field(default_factory=set)
    within: set[nn.Parameter] = field(default_factory=set)
    hidden: bool = False

    def add(self, other: Reached) -> None:
        """Take in what another loss leads to."""
        self.surely |= other.surely
        self.within |= other.within
        self.hidden |= other.hidden

    def leaves(self, parameters: Collection[nn.Parameter], head: nn.Module | None) -> list[Any]:
        """Return those of some parameters that are not reached.

        Args:
            parameters: of the model.
            head: its own count as not reached where only compiled code leads to them.
        """
        of_head = set() if head is None else set(head.parameters())
        there = self.surely | (self.within - of_head)
        left = [parameter for parameter in parameters if parameter not in there]
        if self.hidden:
            left = [p for p in left if p in of_head or p.grad is None]
        return left


def reached(loss: Tensor, barrier: Collection[Node] = ()) -> Reached:
    """Return the parameters that a loss leads to.

    Args:
        loss: with its graph.
        barrier: nodes that are not walked through.
    """
    found = Reached()
    compiled: list[Node] = []
    for node in _walk([(loss.grad_fn, loss.output_nr)], set(barrier), compiled):
        if _parameter(node) is not None:
            found.surely.add(_parameter(node))
        found.hidden |= operation(node) == REENTRANT
    behind = [edge for node in compiled for edge in node.next_functions]
    for node in _walk(behind, set(barrier)):
        if _parameter(node) is not None:
            found.within.add(_parameter(node))
        found.hidden |= operation(node) == REENTRANT
    found.within -= found.surely
    return found


def reaches(loss: Tensor, parameters: Collection[nn.Parameter], barrier: Collection[Node]) -> bool:
    """Whether a loss leads to any of these parameters, or may, past a barrier of nodes."""
    wanted = set(parameters)
    for node in _walk([(loss.grad_fn, loss.output_nr)], set(barrier)):
        if _parameter(node) in wanted or operation(node) == REENTRANT:
            return True
    return False


def hides(term: Tensor, barrier: Collection[Node] = ()) -> bool:
    """Whether a tensor leads to what reentrant checkpointing recomputes, past a barrier."""
    nodes = _walk([(term.grad_fn, term.output_nr)], set(barrier))
    return any(operation(node) == REENTRANT for node in nodes)


def crosses_sink(term: Tensor) -> bool:
    """Whether a backward pass of this term goes through the sink of DistributedDataParallel."""
    return any(operation(node) == SINK for node in _walk([(term.grad_fn, term.output_nr)], set()))


def _walk(
    edges: list[Edge], barrier: set[Node], compiled: list[Node] | None = None
) -> Iterator[Node]:
    """Yield every node once, by each of its outputs that is asked for.

    Args:
        edges: where to start: nodes, and which output of each.
        barrier: nodes to stop at.
        compiled: stop at compiled code too, and note it here.
    """
    seen: set[Edge] = set()
    edges = list(edges)
    while edges:
        edge = edges.pop()
        node, output = edge
        if node is None or node in barrier:
            continue
        edge = (node, output if operation(node) == SINK else 0)
        if edge in seen:
            continue
        seen.add(edge)
        if compiled is not None and node.name().startswith("CompiledFunction"):
            compiled.append(node)
            continue
        yield node
        edges.extend(sources(node, output))


def _parameter(node: Node) -> Any:
    """Return the parameter whose gradient a node accumulates, None for any other node."""
    return getattr(node, "variable", None)
