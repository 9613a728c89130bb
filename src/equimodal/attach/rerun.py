"""Run a model or its head once more, leaving nothing behind.

Encoders answer with what they returned before, call by call, so that only the fusion runs. Plain
attributes, buffers, containers and random states are afterwards what they were.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.calls import EncoderCall, Versions, versions
from equimodal.errors import MatchError
from equimodal.update.optimizers import eager

# What torch keeps in every module, and a forward does not change.
TORCHS = frozenset(vars(nn.Module())) - {"_buffers"} | {"forward", "_compiled_call_impl"}
LONG = 1000  # containers with more entries are vocabularies and banks: they come back, not theirs


def copied(tree: Any) -> Any:
    """Return arguments with the containers of the caller copied, and all else as it is."""
    if isinstance(tree, list):
        return [copied(value) for value in tree] if type(tree) is list else tree
    if type(tree) is tuple:
        return tuple(copied(value) for value in tree)
    if type(tree) is dict:
        return {key: copied(value) for key, value in tree.items()}
    return tree


@contextlib.contextmanager
def answering(
    calls: Mapping[str, Sequence[EncoderCall]], outputs: Mapping[int, Any]
) -> Iterator[None]:
    """Let encoders answer with what they returned before, or something else in its place.

    Args:
        calls: of each modality, in order.
        outputs: what to answer in place of a call, by its identity.

    Raises:
        MatchError: an encoder runs more or less often than before; what a call returned has been
            changed in place since.
    """
    queues: dict[nn.Module, deque[Any]] = {}
    whose: dict[nn.Module, str] = {}
    for name, of in calls.items():
        for call in of:
            if call.versions is not None and call.versions != versions(call.output):
                raise MatchError(
                    f"what the encoder of {name} returned was changed in place by what follows "
                    f"it, and the model has to run again on what {type(call.module).__name__} "
                    "returned: use inplace=False there, z = z + ... in place of z += ..., or "
                    "scores that do not run the model, such as eq.Probe()"
                )
            output = outputs.get(id(call), call.output)
            queues.setdefault(call.module, deque()).append(copied(output))
            whose[call.module] = name
    lengths = {module: len(queue) for module, queue in queues.items()}

    def count(module: nn.Module, again: str) -> MatchError:
        return MatchError(
            f"the encoder of {whose[module]} ran {lengths[module]} times, and {again} when the "
            "model was run again: its forward must call its encoders as often in evaluation mode "
            "as in training; or take scores that do not run the model, such as eq.Probe()"
        )

    def answer(module: nn.Module) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not queues[module]:
                raise count(module, "more often")
            return queues[module].popleft()

        return forward

    with contextlib.ExitStack() as stack:
        for module in queues:
            stack.enter_context(shadowed(module, "forward", answer(module)))
            stack.enter_context(shadowed(module, "_compiled_call_impl", None))
        yield
        for module, queue in queues.items():
            if queue:
                raise count(module, str(lengths[module] - len(queue)))


@contextlib.contextmanager
def shadowed(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """Give a module another attribute, within a `with` block."""
    own = vars(module)
    before = own.get(name, own)
    own[name] = value
    try:
        yield
    finally:
        if before is own:
            del own[name]
        else:
            own[name] = before


@contextlib.contextmanager
def untouched(module: nn.Module, leave_out: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Put back what a forward changes in a module, at the end of a `with` block.

    Args:
        module: with all that it holds.
        leave_out: modules that do not run.
    """
    idle = {inner for of in leave_out for inner in of.modules()}
    parts = [part for part in module.modules() if part not in idle]
    kept: dict[int, tuple[Any, Any]] = {}
    attributes = []
    for part in parts:
        plain = {k: v for k, v in vars(part).items() if k not in TORCHS}
        attributes.append((part, plain))
        for value in plain.values():
            _keep(value, kept)
        for key, value in plain.items():
            if isinstance(value, Tensor) and not value.requires_grad:
                vars(part)[key] = value.clone()  # a bank that a forward writes into
        for key, buffer in plain["_buffers"].items():
            if buffer is not None:
                part._buffers[key] = buffer.clone()
    try:
        yield
    finally:
        for part, plain in attributes:
            own = vars(part)
            for key in [k for k in own if k not in TORCHS and k not in plain]:
                del own[key]
            own.update(plain)
        _put_back(kept)


def _keep(value: Any, kept: dict[int, tuple[Any, Any]]) -> None:
    """Note what is in a container, and in those within it."""
    if not isinstance(value, list | set | deque | MutableMapping) or id(value) in kept:
        return
    kept[id(value)] = value, dict(value) if isinstance(value, Mapping) else list(value)
    if len(value) <= LONG and not isinstance(value, set):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _keep(inner, kept)


def _put_back(kept: Mapping[int, tuple[Any, Any]]) -> None:
    for container, was in kept.values():
        now = dict(container) if isinstance(container, Mapping) else list(container)
        if len(now) == len(was) and _same(now, was):
            continue
        container.clear()
        if isinstance(container, list | deque):
            container.extend(was)
        else:
            container.update(was)


def _same(now: Any, was: Any) -> bool:
    if isinstance(was, dict):
        return list(now) == list(was) and all(now[key] is was[key] for key in was)
    return all(one is other for one, other in zip(now, was, strict=True))


@contextlib.contextmanager
def same_random_state(module: nn.Module) -> Iterator[None]:
    """Put the random generators that a module may draw from back, at the end of a `with` block."""
    tensors = (*module.parameters(), *module.buffers())
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield


@eager
def model_again(
    model: nn.Module,
    given: tuple[tuple[Any, ...], dict[str, Any]],
    calls: Mapping[str, Sequence[EncoderCall]],
    outputs: Mapping[int, Any],
) -> Any:
    """Run the fusion of a whole model again.

    Args:
        model: without a wrapper.
        given: its arguments in the forward that is run again.
        calls: of its encoders in that forward.
        outputs: see `answering`.
    """
    modules = {call.module for of in calls.values() for call in of}
    args, kwargs = copied(given[0]), copied(given[1])
    plain = shadowed(model, "_compiled_call_impl", None)
    with answering(calls, outputs), unnoticed(model, modules), plain:
        return model(*args, **kwargs)


@contextlib.contextmanager
def unnoticed(module: nn.Module, leave_out: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Let a module run so that nothing shows it; in training mode random numbers are drawn."""
    with contextlib.ExitStack() as stack:
        if not module.training:
            stack.enter_context(same_random_state(module))
        stack.enter_context(untouched(module, leave_out))
        yield


def refuse_changed_inputs(before: Versions, given: Any) -> None:
    """Refuse to run a model again on arguments that were changed in place since.

    Raises:
        MatchError: they were.
    """
    if before is not None and before != versions(given):
        raise MatchError(
            "the model's inputs were changed in place since it was given them, by its forward or "
            "after it, and it has to run again on what they were: write x = x * 2 in place of "
            "x *= 2, call balancer.loss before they are filled anew, or take scores that do not "
            "run the model, such as eq.Probe()"
        )
