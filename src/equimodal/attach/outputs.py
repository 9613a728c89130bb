"""Which of the tensors that an encoder returned is its feature, in a model without a head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from equimodal.attach.call import Call
from equimodal.attach.calls import Calls
from equimodal.attach.discovery import find_layout
from equimodal.attach.features import Given, Layout, Path, Separate, given_layout, spell, tensors
from equimodal.attach.graph import nearest
from equimodal.attach.misfits import Misfits, refuse_uncalled
from equimodal.errors import MatchError
from equimodal.modalities import Modalities


def of_outputs(
    given: Given | None,
    modalities: Modalities,
    call: Call,
    ends: Iterable[Tensor],
    misfits: Misfits,
) -> Layout:
    """Return where the features are among what the encoders returned, as keywords.

    Args:
        given: what the user said: a function of all that was returned; or for each modality a
            place in what its encoder returned, where that is no tensor.
        modalities: the encoders.
        call: the forward, with the calls that made its features.
        ends: the logits, with their graph.
        misfits: who knows what took part without being called.

    Raises:
        MatchError: an encoder was not called, or returned several tensors that are used.
    """
    for name in misfits.uncalled(call, ends):
        refuse_uncalled(name, modalities)
    _, returned = call.inputs
    if isinstance(given, Mapping) and not any(isinstance(p, slice) for p in given.values()):
        layout = given_layout(given, call.inputs)
        assert isinstance(layout, Separate)
        return Separate(
            {
                name: (1, name)
                if isinstance(returned.get(name), Tensor)
                else (1, name, given[name])
                for name in layout.paths
            }
        )
    if given is not None:
        return given_layout(given, call.inputs)
    if any(name not in returned for name in modalities.names):
        outputs = {name: call.outputs().get(name, []) for name in modalities.names}
        return find_layout(call.inputs, outputs, modalities.frozen(), call.compiled)
    return find_outputs(call.made, ends)


def find_outputs(calls: Calls, ends: Iterable[Tensor]) -> Separate:
    """Find for each modality the one tensor of what its encoder returned that is used.

    Args:
        calls: those that made the features.
        ends: the logits, with their graph.

    Raises:
        MatchError: an encoder returned several that are used, or none that leaves a trace.
    """
    leaves = {name: dict(tensors(of[0].output)) for name, of in calls.items()}
    edges = {
        (tensor.grad_fn, tensor.output_nr): (name, path)
        for name, of in leaves.items()
        for path, tensor in of.items()
        if tensor.grad_fn is not None
    }
    used: dict[str, list[Path]] = {name: [] for name in calls}
    if any(len(of) > 1 for of in leaves.values()):
        for edge in nearest(ends, edges):
            name, path = edges[edge]
            used[name].append(path)
    places = {}
    for name, of in leaves.items():
        found = list(of) if len(of) == 1 else used[name]
        if len(found) != 1:
            raise MatchError(_several(name, list(calls), of, found))
        places[name] = (1, name, *found[0])
    return Separate(places)


def _several(name: str, names: list[str], returned: Mapping[Path, Tensor], used: list[Path]) -> str:
    entries = ", ".join(
        f"{spell((1, name, *path)).removeprefix('keyword ')} of shape {tuple(tensor.shape)}"
        for path, tensor in returned.items()
    )
    picked = ", ".join(f"{n!r}: {n}['...']" for n in names)
    trace = "several of them are used" if used else "none leaves a trace in the logits"
    return (
        f"the encoder of {name} returned several tensors: {entries}, and {trace}. Let the encoder "
        f"end with the module that returns its feature alone, encoders={{{name!r}: [encoder, "
        f"projection]}}, or say which one it is: features=lambda {', '.join(names)}: {{{picked}}}"
    )
