"""Where the inputs of the fusion head hold the feature of each modality.

A layout reads the features from the arguments of one call of the head, and writes others in their
place, so that the head can be run again on features that were dropped, ablated or scaled.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from equimodal.errors import MatchError, SetupError, unknown

Features = dict[str, Tensor]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Path = tuple[Any, ...]
Place = int | str | slice
Given = Mapping[str, Place] | Callable[..., Mapping[str, Tensor]]


class Layout(Protocol):
    """How the head takes its features."""

    def read(self, inputs: Inputs) -> Features:
        """Return the feature of every modality."""

    def write(self, inputs: Inputs, features: Mapping[str, Tensor]) -> Inputs:
        """Return inputs that hold these features instead."""


@dataclass(frozen=True)
class Separate:
    """Each modality is a tensor of its own: an argument, a keyword, an entry of a dict or list."""

    paths: dict[str, Path]

    @property
    def places(self) -> list[Path]:
        """Where the features are among the inputs."""
        return [*self.paths.values()]

    def read(self, inputs: Inputs) -> Features:
        return {name: _get(inputs, path, name) for name, path in self.paths.items()}

    def __str__(self) -> str:
        return ", ".join(f"{name} from {spell(path)}" for name, path in self.paths.items())

    def write(self, inputs: Inputs, features: Mapping[str, Tensor]) -> Inputs:
        for name, path in self.paths.items():
            inputs = replaced(inputs, path, features[name])
        return inputs


@dataclass(frozen=True)
class Concatenated:
    """One tensor holds all features side by side along a dimension."""

    path: Path
    dim: int
    slices: dict[str, tuple[int, int]]  # start and width

    @property
    def places(self) -> list[Path]:
        """Where the features are among the inputs."""
        return [self.path]

    def __str__(self) -> str:
        cuts = ", ".join(f"{n} {a}:{a + width}" for n, (a, width) in self.slices.items())
        return f"{cuts} of {spell(self.path)}"

    def read(self, inputs: Inputs) -> Features:
        tensor = _get(inputs, self.path, "the concatenated features")
        end = max(start + width for start, width in self.slices.values())
        if tensor.shape[self.dim] < end:
            raise MatchError(
                f"the head was given a tensor of shape {tuple(tensor.shape)}, but features are "
                f"expected up to index {end} of dimension {self.dim}: {self.slices}"
            )
        return {
            name: tensor.narrow(self.dim, start, width)
            for name, (start, width) in self.slices.items()
        }

    def write(self, inputs: Inputs, features: Mapping[str, Tensor]) -> Inputs:
        tensor = _get(inputs, self.path, "the concatenated features")
        end, pieces = 0, []
        for name, (start, width) in sorted(self.slices.items(), key=lambda item: item[1]):
            if start > end:
                pieces.append(tensor.narrow(self.dim, end, start - end))
            pieces.append(features[name])
            end = start + width
        if end < tensor.shape[self.dim]:
            pieces.append(tensor.narrow(self.dim, end, tensor.shape[self.dim] - end))
        written: Inputs = replaced(inputs, self.path, torch.cat(pieces, dim=self.dim))
        return written


@dataclass(frozen=True)
class Custom:
    """The user's own function reads the features from the head's arguments."""

    function: Callable[..., Mapping[str, Tensor]]

    def __str__(self) -> str:
        return "by your function"

    def read(self, inputs: Inputs) -> Features:
        args, kwargs = inputs
        return dict(self.function(*args, **kwargs))

    def write(self, inputs: Inputs, features: Mapping[str, Tensor]) -> Inputs:
        paths = {id(tensor): path for path, tensor in tensors(inputs)}
        for name, feature in self.read(inputs).items():
            if id(feature) not in paths:
                raise MatchError(
                    f"features(...)['{name}'] is computed from the head's arguments and is not one "
                    "of them, so it cannot be replaced: give features as positions or slices, or "
                    "scores that do not run the head again, such as eq.Probe()"
                )
            inputs = replaced(inputs, paths[id(feature)], features[name])
        return inputs


def scaled(features: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> Features:
    """Return the features multiplied by factors of shape ``(B,)``, where a modality has some."""
    found = dict(features)
    for name, factor in factors.items():
        feature = found[name]
        shape = (-1, *[1] * (feature.ndim - 1))
        found[name] = feature * factor.to(feature.dtype).view(shape)
    return found


def tensors(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield the tensors in nested tuples, lists, dicts and dataclasses, with what leads to each."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from tensors(value, (*path, key))
    elif isinstance(tree, tuple | list):
        for index, value in enumerate(tree):
            yield from tensors(value, (*path, index))
    elif is_dataclass(tree) and not isinstance(tree, type):
        for field in fields(tree):
            yield from tensors(getattr(tree, field.name, None), (*path, field.name))


def refuse_unknown(given: Given | None, names: tuple[str, ...]) -> None:
    """Refuse `features=` that does not name the modalities."""
    if not isinstance(given, Mapping):
        return
    for name in given:
        if name not in names:
            raise SetupError("features: " + unknown("modality", name, names))
    missing = [name for name in names if name not in given]
    if missing:
        raise SetupError(f"features: no entry for {', '.join(missing)}")


def given_layout(given: Given, inputs: Inputs) -> Layout:
    """Build the layout that the user described with `features=`."""
    if not isinstance(given, Mapping):
        return Custom(given)
    if all(isinstance(place, slice) for place in given.values()):
        return sliced(given, inputs)
    paths = {}
    for name, place in given.items():
        if isinstance(place, slice):
            raise SetupError("features: give slices for all modalities or for none")
        paths[name] = (0, place) if isinstance(place, int) else (1, place)
    return Separate(paths)


def sliced(given: Mapping[str, Any], inputs: Inputs, dim: int | None = None) -> Concatenated:
    """Build the layout of slices of one tensor, along its features or another dimension."""
    found = list(tensors(inputs))
    if len(found) != 1:
        raise SetupError(f"features: slices cut one tensor, but the head was given {len(found)}")
    ((path, tensor),) = found
    if dim is None:
        dim = 1 if tensor.ndim >= 4 else tensor.ndim - 1
    slices = {}
    for name, cut in given.items():
        start, stop, step = cut.indices(tensor.shape[dim])
        if step != 1 or stop <= start:
            raise SetupError(
                f"features['{name}']: expected a slice with step 1 and a positive length within "
                f"{tensor.shape[dim]}, found {cut}"
            )
        slices[name] = (start, stop - start)
    ends = sorted((start, start + width) for start, width in slices.values())
    if any(start < end for (_, end), (start, _) in itertools.pairwise(ends)):
        raise SetupError(
            f"features: expected slices that do not overlap, found {dict(given)}: features that "
            "lie in one another, as in a sum, have no place of their own; pass head=None"
        )
    return Concatenated(path, dim, slices)


def spell(path: Path) -> str:
    """Name a place among the head's inputs as a user would."""
    first, *rest = path[1:]
    start = f"argument {first}" if path[0] == 0 else f"keyword {first}"
    return start + "".join(f"[{key!r}]" for key in rest)


def _get(inputs: Inputs, path: Path, name: str) -> Tensor:
    value: Any = inputs
    try:
        for key in path:
            value = _entry(value, key)
    except (AttributeError, KeyError, IndexError, TypeError):
        value = None
    if not isinstance(value, Tensor):
        raise MatchError(
            f"{name}: expected a tensor as {spell(path)} of the head, found "
            f"{type(value).__name__}. For a modality missing from the whole batch give the head a "
            "tensor of zeros and tell loss(..., present={name: mask}) which samples have it"
        )
    return value


def _entry(tree: Any, key: Any) -> Any:
    """Return the entry of a container, or the field of a dataclass that is none."""
    plain = is_dataclass(tree) and not isinstance(tree, Mapping | tuple | list)
    return getattr(tree, key) if plain else tree[key]


def replaced(tree: Any, path: Path, value: Any) -> Any:
    """Return nested containers, each of its own kind, with another value in one place."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    value = replaced(_entry(tree, key), rest, value)
    if isinstance(tree, tuple | list):
        items = [*tree[:key], value, *tree[key + 1 :]]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if type(tree) is dict:
        return {**tree, key: value}
    copied = copy.copy(tree)  # what models return is read by attribute, too
    if isinstance(tree, Mapping):
        copied[key] = value
    else:
        object.__setattr__(copied, key, value)  # also where it is frozen
    return copied


def detached(tree: Any) -> Any:
    """Return nested containers with tensors that need no gradient."""
    for path, tensor in tensors(tree):
        if tensor.requires_grad:
            tree = replaced(tree, path, tensor.detach())
    return tree
