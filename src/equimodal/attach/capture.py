"""What a forward leaves behind: which features led to which logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.attach.features import Inputs, Path, tensors
from equimodal.attach.graph import ancestors, depends_on, mark, marked
from equimodal.errors import MatchError
from equimodal.modalities import Modalities


@dataclass(frozen=True)
class Call:
    """One forward of the head; of the whole model where it has no head.

    Attributes:
        inputs: positional and keyword arguments that the head was given, before any gate. Without
            a head: no positional arguments, and what each encoder returned as keywords.
        encoders: for each modality what its encoder was given and what it returned, where recorded.
        autocast: device type, dtype and whether autocast was on, to run the head again alike.
        compiled: whether it ran in compiled code.
        versions: of the input tensors before the head ran.
        model: the arguments of the whole model, where it has no head.
        output: where among the tensors that the head returned the user's logits are.
        returned: that tensor, without its graph.
        gates: what the features were multiplied by before the head ran, by modality; None where
            nothing could do so.
    """

    inputs: Inputs
    encoders: dict[str, tuple[Inputs, Any]]
    autocast: tuple[str, torch.dtype, bool]
    versions: tuple[int, ...] | None = None
    model: Inputs = ((), {})
    output: Path = ()
    returned: Tensor | None = None
    gates: dict[str, Tensor] | None = None
    compiled: bool = False

    def outputs(self) -> dict[str, list[Tensor]]:
        """Return for each modality the tensors that its encoder returned."""
        return {
            name: [tensor for _, tensor in tensors(output)]
            for name, (_, output) in self.encoders.items()
        }

    def check_unchanged(self) -> None:
        """Refuse features that were overwritten since the head was given them.

        Raises:
            MatchError: a tensor has been changed in place.
        """
        if self.versions is not None and self.versions != _versions(self.inputs):
            raise MatchError(
                "the features were changed in place after the head was given them, for instance "
                "by ReLU(inplace=True) as its first layer: use inplace=False there"
            )

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """Return the autocast setting of this forward, as a context manager."""
        device, dtype, enabled = self.autocast
        if not enabled and not torch.is_autocast_enabled(device):
            return contextlib.nullcontext()
        return torch.autocast(device, dtype=dtype, enabled=enabled)


class Hook:
    """A module hook that leaves no trace in copies: they carry a builtin that does nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


class EncoderWatch:
    """The latest forward of one encoder, from when it ran until the head has run."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.latest: tuple[Inputs, Any] | None = None
        self.count = 0
        self.source: nn.Module | None = None  # which of the encoder's modules the latest is of
        self.substitute: Any = None

    def after(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Record a forward, or answer with a substitute for its output."""
        if self.substitute is not None:
            return self.substitute if module is self.source else None
        if self.recorder.recording() or self.recorder.runs_frozen(module):
            kept = ((args, kwargs), output) if self.recorder.keeps_encoders else (((), {}), None)
            self.latest, self.source = kept, module
            if not torch.compiler.is_compiling():  # it would guard on the count
                self.count += 1
        return None

    def take(self) -> tuple[Inputs, Any] | None:
        """Return the latest forward and forget it."""
        latest = self.latest
        self.latest = None
        return latest


class Recorder:
    """Hooks on the encoders and the head of a model.

    What a forward with gradients used is attached to the graph of the head's output, where `match`
    finds it from the logits. A compiled forward cannot attach anything: it is remembered until the
    next one.

    Args:
        model: the whole model, which stands for the head where there is none.
        modalities: the encoders.
        head: the fusion head, or None.

    Attributes:
        gate: changes the head's inputs before it runs in training, if set, and says by what.
        keeps_encoders: whether what encoders are given and return is kept, and not only that they
            ran.
        paused: while True, nothing is recorded.
        observing: while True, forwards without gradients are recorded as well.
        seen: the forward last observed or compiled, and what it returned.
    """

    def __init__(self, model: nn.Module, modalities: Modalities, head: nn.Module | None) -> None:
        self.head = head
        self.boundary = model if head is None else head
        self.gate: Callable[[Call], tuple[Inputs, dict[str, Tensor]] | None] | None = None
        self.keeps_encoders = True
        self.paused = False
        self.observing = False
        self.seen: tuple[Call, Any] | None = None
        self._key = object()
        self._entry: Call | None = None
        self._encoders = {name: EncoderWatch(self) for name in modalities.names}
        self._modules = list(modalities.encoder_modules())
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Put the hooks on the model."""
        self._handles = [
            module.register_forward_hook(Hook(self._encoders[name].after), with_kwargs=True)
            for name, module in self._modules
        ]
        self._handles += [
            self.boundary.register_forward_pre_hook(Hook(self._before), with_kwargs=True),
            self.boundary.register_forward_hook(Hook(self._after), with_kwargs=True),
        ]

    def remove(self) -> None:
        """Take every hook off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.seen = None

    def strip(self, copied: nn.Module, original: nn.Module) -> None:
        """Take what a deep copy carries of the hooks off it."""
        for module, of in zip(copied.modules(), original.modules(), strict=True):
            for hooks in ("_forward_hooks", "_forward_pre_hooks"):
                for key, hook in getattr(of, hooks).items():
                    if isinstance(hook, Hook):
                        for kind in (hooks, f"{hooks}_with_kwargs"):
                            getattr(module, kind).pop(key, None)

    def recording(self) -> bool:
        """Whether a forward that runs now is recorded."""
        if self.paused:
            return False
        if self.observing:
            return True
        if torch.compiler.is_compiling():
            return torch.is_grad_enabled()
        # Within a backward pass, a forward is the recomputation of a checkpoint.
        return torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1

    def runs_frozen(self, module: nn.Module) -> bool:
        """Whether this is a frozen encoder, which users run under `torch.no_grad` in training."""
        if self.paused or torch.is_grad_enabled():
            return False
        return not any(parameter.requires_grad for parameter in module.parameters())

    def match(self, logits: Tensor) -> Call:
        """Return the forward that led to the logits.

        Raises:
            MatchError: there is none, or several.
        """
        latest: list[tuple[Path, Tensor]] = []
        if self.seen is not None:
            call, output = self.seen
            latest = list(tensors(output))
            for path, tensor in latest:
                if tensor is logits:  # known without the graph, which the compiler does not see
                    return replace(call, output=path, returned=logits.detach())
        calls: list[Call] = marked(logits, self._key)
        if not calls and latest:
            near = [leaf for leaf in latest if depends_on(logits, leaf[1])]
            calls = [replace(call, output=path, returned=t.detach()) for path, t in near[:1]]
        if len({id(call.inputs) for call in calls}) == 1:  # several outputs of one forward, joined
            return calls[0]
        role = f"the head ({type(self.boundary).__name__})" if self.head else "the model"
        if calls:
            raise MatchError(
                f"these logits come from {len(calls)} forwards of {role}: let the module given as "
                "head include what joins them, or call loss for each"
            )
        if not self._handles:
            raise MatchError(
                "this balancer is detached from the model, and sees no forward any more: make "
                "another, eq.Balancer(...), to go on"
            )
        if logits.grad_fn is None:
            raise MatchError(
                "the logits carry no graph: the forward ran under torch.no_grad() or "
                "inference_mode(), was detached, or every parameter is frozen. Run the model with "
                "gradients for balancer.loss to train it"
            )
        raise MatchError(
            f"no recorded forward of {role} led to these logits. It must be called as a module, "
            "with gradients enabled, after the balancer was attached; reentrant checkpointing "
            "around it hides it (use_reentrant=False), and of a compiled model only the latest "
            "forward is remembered"
        )

    def take(self) -> tuple[Call, Any] | None:
        """Return the forward last observed and what it returned, and forget it."""
        seen, self.seen = self.seen, None
        return seen

    def substitute(self, outputs: dict[str, Any]) -> contextlib.ExitStack:
        """Let the encoders answer with these outputs, within a `with` block."""
        stack = contextlib.ExitStack()
        for name, output in outputs.items():
            self._encoders[name].substitute = output
            stack.callback(setattr, self._encoders[name], "substitute", None)
        return stack

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Record nothing, within a `with` block."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    @contextlib.contextmanager
    def observe(self) -> Iterator[None]:
        """Record forwards without gradients too, in `seen`, within a `with` block."""
        before, self.observing = self.observing, True
        try:
            yield
        finally:
            self.observing = before

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Inputs | None:
        if self.head is None or torch.compiler.is_compiling():
            return None
        if not self.recording():
            if self.gate is not None and module.training and self._recomputes():
                raise MatchError(
                    f"the head ({type(module).__name__}) is recomputed in the backward pass, "
                    "without the features that a method has dropped or scaled: leave the head out "
                    "of checkpointing"
                )
            return None
        self._entry = self._call((args, kwargs))
        if self.gate is None or not module.training or self.observing:
            return None
        gated = self.gate(self._entry)
        if gated is None:
            return None
        inputs, gates = gated
        self._entry = replace(self._entry, gates=gates)
        return inputs

    def _recomputes(self) -> bool:
        """Whether a forward that runs now is the recomputation of a checkpoint."""
        within_backward = torch._C._current_graph_task_id() != -1
        return within_backward and torch.is_grad_enabled() and not self.paused

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if not self.recording():
            if not self.paused:  # an evaluation: what a frozen encoder left behind is of no use
                for watch in self._encoders.values():
                    watch.take()
            return None
        if torch.compiler.is_compiling():
            self.seen = (replace(self._call((args, kwargs)), compiled=True), output)
            return None
        call = self._entry or self._call((args, kwargs))
        self._entry = None
        if self.observing:
            self.seen = (call, output)
            return None
        return self._mark(call, output)

    def _call(self, inputs: Inputs) -> Call:
        encoders = {}  # filled in a plain loop, which the compiler follows
        for name, watch in self._encoders.items():
            latest = watch.take()
            if latest is not None:
                encoders[name] = latest
        if self.head is None:
            returned = {name: output for name, (_, output) in encoders.items()}
            return Call(
                ((), returned), encoders, _autocast(inputs), _versions(((), returned)), inputs
            )
        return Call(inputs, encoders, _autocast(inputs), _versions(inputs))

    def _mark(self, call: Call, output: Any) -> Any:
        """Attach the call to the graph of what the head returned."""
        recorded = [
            tensor
            for tree in (call.inputs, [output for _, output in call.encoders.values()])
            for _, tensor in tensors(tree)
        ]
        upstream = {tensor.grad_fn for tensor in recorded}
        if isinstance(output, Tensor) and output.requires_grad and output.grad_fn in upstream:
            output = output.view_as(output)  # a node of its own: the graph must not hold itself
            mark(output, self._key, replace(call, returned=output.detach()))
            return output
        returned = list(tensors(output))
        if len(returned) > 1:  # an encoder's hidden states among them are upstream of its feature
            upstream = ancestors(recorded)
        for path, tensor in returned:
            if tensor.grad_fn is not None and tensor.grad_fn not in upstream:
                mark(tensor, self._key, replace(call, output=path, returned=tensor.detach()))
        return None


def leave(recorder: Recorder, handles: Sequence[RemovableHandle]) -> None:
    """Take a recorder's hooks off the model, and other hooks off what they are on."""
    recorder.remove()
    for handle in handles:
        handle.remove()


def _autocast(inputs: Inputs) -> tuple[str, torch.dtype, bool]:
    device = next((tensor.device.type for _, tensor in tensors(inputs)), "cpu")
    return device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)


def _versions(inputs: Inputs) -> tuple[int, ...] | None:
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return None  # tensors made there do not count their changes
    return tuple(tensor._version for _, tensor in tensors(inputs))
