"""Which of the tensors that a head or a model returned are the logits, in each of its modes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from equimodal.attach.features import Path, tensors
from equimodal.attach.graph import parameters_behind
from equimodal.errors import MatchError


class Places:
    """The place of the logits, known from training and found again in evaluation.

    A model may return more in training, such as auxiliary outputs. The same tensor is the one that
    the same parameters made: the order of outputs alone does not say so.
    """

    def __init__(self) -> None:
        self._known: dict[bool, Path] = {}
        self._makers: set[Tensor] | None = None

    def note(self, training: bool, path: Path) -> None:
        """Learn where the logits were in one mode."""
        self._known[training] = path

    def note_makers(self, logits: Tensor, inputs: Iterable[Tensor]) -> None:
        """Learn which parameters make logits of these inputs, once."""
        if self._makers is None:
            self._makers = parameters_behind([logits], stop=inputs)

    def find(
        self, training: bool, output: Any, again: Callable[[], tuple[Any, Iterable[Tensor]]]
    ) -> Path | None:
        """Return the place of the logits in an output, None where nothing tells.

        Args:
            training: in which mode it was returned.
            output: what was returned.
            again: runs the same with gradients, and returns its output and its inputs.
        """
        leaves = dict(tensors(output))
        if len(leaves) == 1:
            return next(iter(leaves))
        known = self._known.get(training)
        if known is None and self._makers is not None:
            known = self._by_makers(self._known.get(not training), *again())
            if known is not None:
                self._known[training] = known
        return known if known in leaves else None

    def _by_makers(self, other: Path | None, output: Any, inputs: Iterable[Tensor]) -> Path | None:
        inputs = list(inputs)
        same = [
            path
            for path, tensor in tensors(output)
            if parameters_behind([tensor], stop=inputs) == self._makers
        ]
        return other if other in same else same[0] if len(same) == 1 else None


def refuse_unplaced(output: Any, training: bool) -> MatchError:
    """Return what to raise where nothing tells which output holds the logits."""
    mode, other = ("training", "evaluation") if training else ("evaluation", "training")
    return MatchError(
        f"in {mode} mode {len(list(tensors(output)))} tensors are returned, and which of them are "
        f"the logits is not told by those in {other} mode: let it return the logits alone, or at "
        "the same place, in both modes; or call balancer.check(batch) with forward= returning them"
    )


@contextlib.contextmanager
def with_gradients() -> Iterator[None]:
    """Let a forward have a graph, also within `torch.inference_mode`, in a `with` block."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
