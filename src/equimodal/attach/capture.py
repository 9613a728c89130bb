"""What a forward leaves behind: which features led to which logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.attach.call import Call
from equimodal.attach.calls import EncoderCall, Versions, versions
from equimodal.attach.chain import Chain
from equimodal.attach.features import Inputs, Path, tensors
from equimodal.attach.graph import ancestors, depends_on, mark, marked
from equimodal.attach.held import Holding
from equimodal.attach.observed import leading
from equimodal.attach.rerun import copied
from equimodal.attach.traced import traced
from equimodal.errors import MatchError, SetupError
from equimodal.modalities import Modalities

Kept = EncoderCall | tuple[Any, ...]  # a call, or what makes one


class Hook:
    """A module hook that leaves no trace in copies: they carry a builtin that does nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    @property
    def __name__(self) -> str:
        """Asked for by `torch.jit.script` alone, which would compile the hook into the model."""
        raise SetupError(
            "torch.jit.script compiles hooks along with a module, and this model has those of a "
            "balancer: script what balancer.export() returns, or call balancer.detach() before"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


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
        seen: the forward last compiled, and what it returned.
        several: how often the head ran in the forward last observed.
        traces: whether what frozen encoders return begins a graph, which tells where it goes.
        called: modalities whose encoder was ever called as a module.
    """

    def __init__(self, model: nn.Module, modalities: Modalities, head: nn.Module | None) -> None:
        self.head = head
        self.boundary = model if head is None else head
        self.gate: Callable[[Call], tuple[Inputs, dict[str, Tensor]] | None] | None = None
        self.keeps_encoders = True
        self.paused = False
        self.observing = False
        self.seen: tuple[Call, Any] | None = None
        self.several = 0
        self.traces: Callable[[], bool] = lambda: False
        self._frozen = modalities.frozen
        self._observed: list[tuple[Call, Any]] = []
        self.holding = Holding(self.boundary, (m for _, m in modalities.encoder_modules()))
        self.called: set[str] = set()
        self._key = object()
        self._entry: Call | None = None
        self._given: Inputs = ((), {})  # of the head, or of the model without one
        self._changes: Versions = None
        self._inside = False  # the whole model: then calls are of this forward alone
        self._names = modalities.names
        self._calls: dict[str, list[Kept]] = {name: [] for name in modalities.names}
        self._modules = list(modalities.encoder_modules())
        self._model = model
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Put the hooks on the model."""
        self._handles = []
        self._on(self._model, before=self._enter)
        for name, module in self._modules:
            self._on(module, after=partial(self._ran, name))
        if isinstance(self.head, Chain):
            last = len(self.head.parts) - 1
            for place, part in enumerate(self.head.parts):
                before = partial(self._taken, place) if place else self._before
                after = partial(self._handed, place) if place < last else self._after_last
                self._on(part, before, after)
        else:
            self._on(self.boundary, self._before, self._after)
        if self.head is not None:
            self._on(self._model, after=self._exit)

    def _on(
        self,
        module: nn.Module,
        before: Callable[..., Any] | None = None,
        after: Callable[..., Any] | None = None,
    ) -> None:
        if before is not None:
            handle = module.register_forward_pre_hook(Hook(before), with_kwargs=True)
            self._handles.append(handle)
        if after is not None:
            self._handles.append(module.register_forward_hook(Hook(after), with_kwargs=True))

    def remove(self) -> None:
        """Take every hook off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.seen = self._entry = None
        self._observed.clear()
        self._forget()

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
            return torch.is_grad_enabled() and not torch.compiler.is_exporting()
        if torch._C._get_tracing_state() is not None:
            return False
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
                    return replace(call, output=path, returned=logits.numel())
        calls: list[Call] = marked(logits, self._key)
        if not calls and latest:
            near = [leaf for leaf in latest if depends_on(logits, leaf[1])]
            calls = [replace(call, output=path, returned=t.numel()) for path, t in near[:1]]
        if len({id(call.calls) for call in calls}) == 1:  # several outputs of one forward, joined
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

    def take(self, given: Any) -> tuple[Call, Any] | None:
        """Return the observed forward that led to what was returned, and its output; forget all.

        None where the head did not run, or where it ran several times and nothing tells.
        """
        seen, self.seen = self.seen, None
        observed, self._observed = self._observed, []
        self.several = len(observed)
        return leading(observed, given) if observed else seen

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

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Start a forward of the whole model: what ran before is not of it."""
        if self.paused or (torch.compiler.is_exporting() and not self.observing):
            return
        self._forget()
        if not self.recording():
            return
        self._inside = True
        if self.head is None:
            self._given, self._changes = (copied(args), copied(kwargs)), versions((args, kwargs))

    def _exit(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not self.paused and not torch.compiler.is_compiling():
            self._forget()

    def _forget(self) -> None:
        self._inside = False
        self._calls = {name: [] for name in self._names}
        if self.head is None:
            self._given, self._changes = ((), {}), None

    def _ran(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Record a forward of a module of an encoder."""
        if not self.recording() and not self.runs_frozen(module):
            return None
        if torch.compiler.is_compiling():
            # A module that is compiled by itself: the compiler takes this for a frame of its own,
            # and looks into every tensor that is more than passed on here.
            kept = (module, (args, kwargs), output) if self.keeps_encoders else (module,)
            self._calls[name] = [*self._calls[name], kept] if self._inside else [kept]
            return None
        if any(torch._C._functorch.is_functorch_wrapped_tensor(t) for _, t in tensors(output)):
            return None  # within vmap: it is one sample's, and gone when vmap returns
        self.called.add(name)
        changed = None
        if self._inside and self.traces() and name in self._frozen():
            output = changed = traced(output)
        call = EncoderCall(module)
        if self.keeps_encoders or self.observing:
            call = EncoderCall(module, (args, kwargs), copied(output), versions(output))
        if not self._inside:  # by hand, and no head may ever follow: they must not pile up
            call = replace(call, weights=_weights(module))
            self._calls[name] = [
                known
                for known in map(_made, self._calls[name])
                if known.weights == _weights(known.module)
                and (torch.is_grad_enabled() or known.module is not module)
            ]
        self._calls[name].append(call)
        return changed

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Inputs | None:
        if self.head is None:
            return None
        if isinstance(self.head, Chain):
            self.head.start()
            self._given = (args, kwargs)
        if torch.compiler.is_compiling():
            return None
        if not self.recording():
            if self.gate is not None and module.training and self._recomputes():
                raise MatchError(
                    f"the head ({type(module).__name__}) is recomputed in the backward pass, "
                    "without the features that a method has dropped or scaled: leave the head out "
                    "of checkpointing"
                )
            return None
        self._entry = self._call((args, kwargs), module.training)
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

    def _handed(self, place: int, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if isinstance(self.head, Chain) and self.recording():
            self.head.hand(place, output)

    def _taken(self, place: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        if isinstance(self.head, Chain) and self.recording():
            self.head.take(place, args, kwargs)

    def _after_last(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """End the row of modules that a head consists of; alone, the last is no head."""
        assert isinstance(self.head, Chain)
        if self.recording() and not self.head.running:
            return None
        self.head.finish()
        given, self._given = self._given, ((), {})
        return self._after(module, *given, output)

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if not self.recording():
            if not self.paused:  # an evaluation: what a frozen encoder left behind is of no use
                self._forget()
            return None
        if torch.compiler.is_compiling():
            call = replace(self._call((args, kwargs), module.training), compiled=True)
            self.seen = (call, output)
            return None
        call = self._entry or self._call((args, kwargs), module.training)
        self._entry = None
        if self.observing:
            self._observed.append((call, output))
            return None
        return self._mark(call, output)

    def _call(self, inputs: Inputs, training: bool) -> Call:
        calls = {}  # filled in a plain loop, which the compiler follows
        for name, of in self._calls.items():
            if of:
                calls[name] = tuple([_made(call) for call in of])
        given, changes = self._given, self._changes
        autocast = _autocast(inputs)
        if self.head is None:
            self._forget()
            outputs = {n: of[0].output for n, of in calls.items() if len(of) == 1}
            seen = ((), outputs)
            held = self.holding.now()
            return Call(
                seen, calls, autocast, versions(seen), given, changes, training=training, held=held
            )
        if not self._inside or torch.compiler.is_compiling():
            self._forget()
        held = () if torch.compiler.is_compiling() else self.holding.now()
        return Call(inputs, calls, autocast, versions(inputs), training=training, held=held)

    def _mark(self, call: Call, output: Any) -> Any:
        """Attach the call to the graph of what the head returned."""
        recorded = [
            tensor
            for tree in (call.inputs, [c.output for of in call.calls.values() for c in of])
            for _, tensor in tensors(tree)
        ]
        upstream = {tensor.grad_fn for tensor in recorded}
        if isinstance(output, Tensor) and output.requires_grad and output.grad_fn in upstream:
            output = output.view_as(output)  # a node of its own: the graph must not hold itself
            mark(output, self._key, replace(call, returned=output.numel()))
            return output
        returned = list(tensors(output))
        if len(returned) > 1:  # an encoder's hidden states among them are upstream of its feature
            upstream = ancestors(recorded)
        call = replace(call, leaves=len(returned))
        for path, tensor in returned:
            if tensor.grad_fn is not None and tensor.grad_fn not in upstream:
                mark(tensor, self._key, replace(call, output=path, returned=tensor.numel()))
        return None


def _made(kept: Kept) -> EncoderCall:
    return kept if isinstance(kept, EncoderCall) else EncoderCall(*kept)


def leave(recorder: Recorder, handles: Sequence[RemovableHandle]) -> None:
    """Take a recorder's hooks off the model, and other hooks off what they are on."""
    recorder.remove()
    for handle in handles:
        handle.remove()


def _autocast(inputs: Inputs) -> tuple[str, torch.dtype, bool]:
    device = next((tensor.device.type for _, tensor in tensors(inputs)), "cpu")
    return device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)


def _weights(module: nn.Module) -> int | None:
    """Return what changes when the module is trained."""
    parameter = next(module.parameters(), None)
    return None if parameter is None else parameter._version
