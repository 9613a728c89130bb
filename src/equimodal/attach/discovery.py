"""Work out how a head takes its features, from one forward."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from equimodal.attach.features import (
    Concatenated,
    Given,
    Inputs,
    Path,
    Separate,
    sliced,
    spell,
    tensors,
)
from equimodal.errors import MatchError, SetupError


@torch.enable_grad()
def find_layout(
    inputs: Inputs,
    outputs: Mapping[str, list[Tensor]],
    frozen: Collection[str] = (),
    compiled: bool = False,
) -> Separate | Concatenated:
    """Work out from one call how the head takes its features.

    Names decide where the head takes a dict or keywords. Otherwise gradients do: a tensor belongs
    to the modality whose encoder it was computed from, whatever pooling stands between. Nothing is
    guessed from order or size alone.

    Args:
        inputs: the arguments of one call of the head, with their graph.
        outputs: for each modality the tensors that its encoder returned, with their graph; an
            empty list for an encoder that did not run.
        frozen: modalities whose encoders have no parameter that requires a gradient: what these
            return may carry no graph, and then it is the input that is left.
        compiled: the call ran in compiled code, whose graph is one node and tells nothing: names
            decide, or the very tensors that the encoders returned.

    Raises:
        MatchError: the inputs cannot be told apart.
    """
    names = tuple(outputs)
    found = list(tensors(inputs))
    for path, _ in found:
        holder = path[:-1]
        if path[-1] in names and all(name in _keys(inputs, holder) for name in names):
            return Separate({name: (*holder, name) for name in names})
    if compiled:
        layout = _match_separate(names, {p: _same(t, outputs) for p, t in found}, outputs, set())
        if layout is None:
            raise MatchError(
                "which input of the head is which modality does not show in a compiled forward: "
                "take one step, or call balancer.check(batch), before compiling, or give features="
            )
        return layout
    sources = {path: _sources(tensor, outputs) for path, tensor in found}
    reached = {name for of in sources.values() for name in of}
    silent = {name for name in frozen if outputs[name] and name not in reached}
    separate = _match_separate(names, sources, outputs, silent)
    if separate is not None:
        return separate
    for path, tensor in found:
        if sources[path]:
            slices = _match_slices(tensor, outputs, silent)
            if slices is not None:
                return Concatenated(path, slices[0], slices[1])
    raise MatchError(_unmatched(names, found, sources, outputs))


def told_apart(given: Given, inputs: Inputs, outputs: Mapping[str, list[Tensor]]) -> Concatenated:
    """Return the layout of given slices, along the dimension in which they tell modalities apart.

    Features that are stacked lie along another one than features side by side. Where none tells
    them apart, as of features that have interacted, they are along the features.
    """
    assert isinstance(given, Mapping)
    found = list(tensors(inputs))
    for dim in (None, *range(1, found[0][1].ndim)) if len(found) == 1 else ():
        try:
            layout = sliced(given, inputs, dim)
        except SetupError:
            continue
        pieces = layout.read(inputs)
        if all(_sources(piece, outputs) <= {name} for name, piece in pieces.items()):
            return layout
    return sliced(given, inputs)


def _match_separate(
    names: tuple[str, ...],
    sources: dict[Path, set[str]],
    outputs: Mapping[str, list[Tensor]],
    silent: set[str],
) -> Separate | None:
    paths: dict[str, Path] = {}
    for path, of in sources.items():
        if len(of) > 1:
            return None
        if len(of) == 1:
            (name,) = of
            if name in paths:
                return None
            paths[name] = path
    missing = [name for name in names if name not in paths]
    left = [path for path, of in sources.items() if not of]
    if len(missing) == len(left) == 1 and missing[0] in silent:
        paths[missing[0]] = left[0]  # without a gradient it leaves no trace
    elif missing:
        return None
    return Separate(dict(sorted(paths.items(), key=lambda item: list(sources).index(item[1]))))


def beside(
    places: Collection[Path],
    inputs: Inputs,
    outputs: Mapping[str, list[Tensor]],
    compiled: bool = False,
) -> MatchError | None:
    """Return what to raise of an input that encoders led to beside the features, if there is one.

    It would stay in place when the features of other modalities go.

    Args:
        places: of the features among the inputs.
        inputs: the arguments of one call of the head, with their graph.
        outputs: for each modality the tensors that its encoder returned.
        compiled: the call ran in compiled code, whose graph does not tell whose an input is.
    """
    for path, tensor in tensors(inputs):
        if path in places:
            continue
        if compiled and tensor.requires_grad and not tensor.is_leaf:
            return MatchError(
                f"{spell(path)} of the head, of shape {tuple(tensor.shape)}, is beside the "
                "features, and whether it is computed from them does not show in a compiled "
                "forward: take one step, or call balancer.check(batch), before compiling"
            )
        of = set() if compiled else _sources(tensor, outputs)
        if of:
            return MatchError(
                f"{spell(path)} of the head, of shape {tuple(tensor.shape)}, is computed from "
                f"{' and '.join(sorted(of))} too, beside the features themselves: what a modality "
                "does alone would be read with it in place. Let the head compute it from the "
                "features, or pass head=None; or say by features= what counts as a feature"
            )
    return None


def _match_slices(
    tensor: Tensor, outputs: Mapping[str, list[Tensor]], silent: set[str]
) -> tuple[int, dict[str, tuple[int, int]]] | None:
    """Find consecutive slices that cover the tensor, each computed from one modality alone."""
    widths = {
        name: {
            size
            for output in of
            if output.ndim  # numbers, such as a loss of the encoder's own, are no features
            for size in (
                *(output.shape[-1], output[:1].numel(), *output.shape[1:2]),
                *([1] if tensor.ndim == output.ndim + 1 else []),  # stacked, not side by side
            )
        }
        for name, of in outputs.items()
    }

    def place(start: int, left: tuple[str, ...]) -> dict[str, tuple[int, int]] | None:
        if not left:
            return {} if start == tensor.shape[dim] else None
        for name in left:
            for width in sorted(widths[name], reverse=True):
                if start + width > tensor.shape[dim]:
                    continue
                of = _sources(tensor.narrow(dim, start, width), outputs)
                if of == {name} or (not of and name in silent):
                    rest = place(start + width, tuple(n for n in left if n != name))
                    if rest is not None:
                        return {name: (start, width), **rest}
        return None

    for dim in dict.fromkeys((tensor.ndim - 1, 1)):
        if dim < tensor.ndim:
            slices = place(0, tuple(outputs))
            if slices is not None:
                return dim, slices
    return None


def _same(tensor: Tensor, outputs: Mapping[str, list[Tensor]]) -> set[str]:
    """Return the modalities whose encoder returned this very tensor."""
    return {name for name, given in outputs.items() if any(tensor is output for output in given)}


def _sources(tensor: Tensor, outputs: Mapping[str, list[Tensor]]) -> set[str]:
    """Return the modalities whose encoder output the tensor depends on."""
    of = _same(tensor, outputs)
    if of or not tensor.requires_grad:
        return of
    pairs = [(name, o) for name, given in outputs.items() for o in given if o.requires_grad]
    if not pairs:
        return of
    # NaN goes wherever a gradient could, also through a gate that is zero now; but not from one
    # slice into another.
    with torch.autograd.set_detect_anomaly(False):
        gradients = torch.autograd.grad(
            tensor,
            [output for _, output in pairs],
            torch.full_like(tensor, torch.nan),
            retain_graph=True,
            allow_unused=True,
        )
    return {
        name
        for (name, _), gradient in zip(pairs, gradients, strict=True)
        if gradient is not None and bool(gradient.isnan().any())
    }


def _unmatched(
    names: tuple[str, ...],
    found: list[tuple[Path, Tensor]],
    sources: dict[Path, set[str]],
    outputs: Mapping[str, list[Tensor]],
) -> str:
    silent = [name for name, of in outputs.items() if not of]
    if len(silent) == len(names):
        return (
            "no encoder ran with gradients before the head. Each must be called as a module; "
            "reentrant checkpointing hides it (use_reentrant=False). Are these the modules that "
            "the model uses?"
        )
    if silent:
        return (
            f"the encoder of {', '.join(silent)} did not run before the head: modality missing "
            "from the batch? Tell loss(..., present={name: mask}) which samples have it, and give "
            "features= so that its place among the head's inputs is known"
        )
    several = [name for name in names if sum(path[:2] == (1, name) for path, _ in found) > 1]
    if several:
        name, picked = several[0], ", ".join(f"{n!r}: {n}['...']" for n in names)
        entries = ", ".join(
            f"{spell(path).removeprefix('keyword ')} of shape {tuple(tensor.shape)}"
            for path, tensor in found
            if path[:2] == (1, name)
        )
        return (
            f"the encoder of {name} returned several tensors: {entries}. Let the encoder end with "
            f"the module that returns its feature alone, encoders={{{name!r}: [encoder, "
            f"projection]}}, or say which one it is: features=lambda {', '.join(names)}: "
            f"{{{picked}}}"
        )
    reached = {name for of in sources.values() for name in of}
    cut = [n for n in names if n not in reached and any(o.requires_grad for o in outputs[n])]
    if cut and reached:
        return (
            f"none of the inputs of the head depends on what the encoder of {', '.join(cut)} "
            "returned: was its feature detached, or computed anew under torch.no_grad()? Without a "
            "gradient it is not trained; if that is meant, freeze it, requires_grad_(False), or "
            "say by features= where it is"
        )
    seen = "; ".join(
        f"{spell(path)} of shape {tuple(tensor.shape)} from {sorted(sources[path]) or 'none'}"
        for path, tensor in found
    )
    produced = "; ".join(
        f"{name} {[tuple(output.shape) for output in of]}" for name, of in outputs.items()
    )
    example = {name: index for index, name in enumerate(names)}
    return (
        "cannot tell which input of the head is which modality. The head was given: "
        f"{seen or 'no tensor'}. The encoders returned: {produced}. Say where each modality is, by "
        f"position (features={example}), by keyword, by slice of one tensor, or with a function of "
        "the head's arguments; where forward itself fuses them before the head, pass head=None"
    )


def _keys(tree: Any, path: Path) -> list[Any]:
    for key in path:
        tree = tree[key]
    return list(tree) if isinstance(tree, Mapping) else []
