"""All calls of the encoders in one forward, in order, and which of them lie behind a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.features import Inputs, replaced, tensors
from equimodal.attach.graph import nearest
from equimodal.errors import MatchError

Versions = tuple[int, ...] | None


@dataclass(frozen=True)
class EncoderCall:
    """One call of a module of an encoder: what it was given and what it returned, where kept."""

    module: nn.Module
    inputs: Inputs = ((), {})
    output: Any = None
    versions: Versions = None  # of what it returned, at that moment
    weights: int | None = None  # how often its weights had been changed, where it ran by hand


Calls = Mapping[str, Sequence[EncoderCall]]


class Ran(Mapping[str, tuple[Inputs, Any]]):
    """For each modality whose encoder ran what it was given and what it returned.

    An encoder that ran several times has no single answer: asking for it is refused.
    """

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def __getitem__(self, name: str) -> tuple[Inputs, Any]:
        calls = self.calls[name]
        if len(calls) > 1:
            raise MatchError(
                f"the encoder of {name} ran {len(calls)} times for one feature, and a method asks "
                "what it was given: name a module that encodes all of it in one call, such as one "
                "that holds the loop"
            )
        return calls[0].inputs, calls[0].output

    def __contains__(self, name: object) -> bool:
        return name in self.calls

    def __iter__(self) -> Iterator[str]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)


def versions(tree: Any) -> Versions:
    """Return how often each tensor was changed in place, None where that is not counted."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return None
    return tuple(0 if t.is_inference() else t._version for _, t in tensors(tree))


def behind(ends: Iterable[Tensor], calls: Calls) -> dict[str, list[EncoderCall]]:
    """Return the calls that the tensors were computed from, as far as the graph shows.

    A call whose output went through a later one of the same encoder is not among them: the later
    one made the feature. Outputs without a gradient leave no trace: of an encoder that has none
    behind the tensors, the calls of the module that ran last are returned.
    """
    owners = {
        (tensor.grad_fn, tensor.output_nr): call
        for of in calls.values()
        for call in of
        for _, tensor in tensors(call.output)
        if tensor.grad_fn is not None
    }
    met = {id(owners[edge]) for edge in nearest(ends, owners)}
    found = {}
    for name, of in calls.items():
        near = [call for call in of if id(call) in met]
        silent = [call for call in of if call.module is of[-1].module]
        found[name] = near or silent
    return found


def together(name: str, calls: Sequence[EncoderCall]) -> Any:
    """Return what an encoder returned, the tensors of several calls side by side.

    Vectors become a sequence ``(B, T, D)``, sequences a longer one, maps ``(B, C, T, H, W)``.

    Raises:
        MatchError: the calls returned different things.
    """
    first, *others = (call.output for call in calls)
    if not others:
        return first
    leaves = [dict(tensors(output)) for output in (first, *others)]
    joined = first
    for path in leaves[0]:
        parts = [of.get(path) for of in leaves]
        shapes = [None if part is None else tuple(part.shape) for part in parts]
        dim, stacks = _along(len(shapes[0] or ()))
        rest = {s and (s if stacks else s[:dim] + s[dim + 1 :]) for s in shapes}
        if None in shapes or len(rest) > 1:
            raise MatchError(
                f"the encoder of {name} ran {len(calls)} times and returned tensors of shapes "
                f"{shapes}, which do not lie side by side: name the module behind which there is "
                "one feature, or one encoder for each of them"
            )
        join = torch.stack if stacks else torch.cat
        joined = replaced(joined, path, join(parts, dim=dim))  # type: ignore[arg-type]
    return joined


def apart(joined: Any, calls: Sequence[EncoderCall]) -> list[Any]:
    """Return for each call its part of what `together` would have made: the way back."""
    if len(calls) == 1:
        return [joined]
    outputs = [call.output for call in calls]
    for path, whole in tensors(joined):
        likes = [dict(tensors(call.output))[path] for call in calls]
        dim, stacks = _along(likes[0].ndim)
        if stacks:
            parts = whole.unbind(dim)
        else:
            parts = torch.split(whole, [like.shape[dim] for like in likes], dim)
        outputs = [replaced(o, path, part) for o, part in zip(outputs, parts, strict=True)]
    return outputs


def _along(ndim: int) -> tuple[int, bool]:
    """Return the dimension along which calls lie side by side, and whether it is a new one."""
    return {0: (0, True), 1: (1, True), 2: (1, True), 3: (1, False), 4: (2, True)}.get(
        ndim, (2, False)
    )


class Near:
    """Finds the calls that made the features, where an encoder ran several times.

    Attributes:
        needed: whether graphs have to tell.
    """

    def __init__(self) -> None:
        self.needed = False
        self._places: dict[str, tuple[int, list[int]]] = {}  # of how many calls which ones

    def look(self, calls: Calls) -> bool:
        """Return whether an encoder ran several times, and not as before."""
        self.needed = any(
            len(of) > 1 and self._places.get(name, (0, []))[0] != len(of)
            for name, of in calls.items()
        )
        return self.needed

    def find(self, calls: Calls, ends: Iterable[Tensor], compiled: bool) -> Calls:
        """Return the calls that made the features.

        Args:
            calls: all of one forward.
            ends: what was computed from the features.
            compiled: whether there is no graph between them.

        Raises:
            MatchError: nothing tells.
        """
        if all(len(of) == 1 for of in calls.values()):
            return calls
        ends = list(ends)
        if not compiled and any(end.grad_fn is not None for end in ends):
            found = behind(ends, calls)
            for name, of in calls.items():
                near = {id(call) for call in found[name]}
                indices = [index for index, call in enumerate(of) if id(call) in near]
                self._places[name] = len(of), indices
            return found
        made = {}
        for name, of in calls.items():
            count, indices = self._places.get(name, (0, []))
            if count != len(of):
                indices = [i for i, call in enumerate(of) if call.module is of[-1].module]
                if len(indices) > 1:
                    raise MatchError(
                        f"the encoder of {name} ran {len(indices)} times, and which of the calls "
                        "made its feature does not show in a forward that is compiled or without "
                        "gradients: name a module that encodes all of it in one call, or run one "
                        "step or balancer.check with gradients before"
                    )
            made[name] = [of[index] for index in indices]
        return made
