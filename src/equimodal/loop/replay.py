"""What methods draw and note in a first pass, drawn again in the second, which notes nothing."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.rerun import untouched


class Replay:
    """The state that methods have before a first pass, for the second one.

    Args:
        methods: each keeps its state as `Method` asks for, in buffers and as extra state.
    """

    def __init__(self, methods: Iterable[nn.Module]) -> None:
        self._methods = list(methods)
        self._buffers: dict[tuple[nn.Module, str], tuple[Tensor, Tensor]] = {}
        parts = [part for method in self._methods for part in method.modules()]
        self._extras = [(part, copy.deepcopy(_extra(part))) for part in parts]
        self.built()

    def built(self) -> None:
        """Note the buffers that methods have made since, which is within their first pass."""
        for method in self._methods:
            for part in method.modules():
                for name, buffer in part._buffers.items():
                    known = self._buffers.get((part, name))
                    if buffer is not None and (known is None or known[0] is not buffer):
                        self._buffers[part, name] = buffer, buffer.detach().clone()

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Have the methods in that state in a `with` block.

        After it they are as they were before the block, whatever was drawn, counted or proposed.
        """
        with contextlib.ExitStack() as stack:
            for method in self._methods:
                stack.enter_context(untouched(method))
            for (part, name), (_, value) in self._buffers.items():
                part._buffers[name] = value.clone()
            for part, extra in self._extras:
                if not _same(_extra(part), extra):
                    part.set_extra_state(copy.deepcopy(extra))
            yield


def _extra(part: nn.Module) -> Any:
    own = type(part).get_extra_state is not nn.Module.get_extra_state
    return part.get_extra_state() if own else None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        alike = len(one) == len(other) and not isinstance(other, str)
        return alike and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)
