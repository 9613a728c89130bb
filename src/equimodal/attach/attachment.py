"""The balancer's hold on a model: from logits to the step that led to them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from equimodal.attach.capture import Call, Recorder
from equimodal.attach.discovery import find_layout
from equimodal.attach.features import (
    Features,
    Given,
    Inputs,
    Layout,
    Path,
    given_layout,
    scaled,
    tensors,
)
from equimodal.attach.handed import TRANSFORMED, handed_on
from equimodal.attach.sharding import find_sharding, refuse_copy
from equimodal.criterion import Criterion
from equimodal.errors import MatchError, SetupError
from equimodal.modalities import Encoders, Modalities, find_module
from equimodal.scores import Scores, evaluation
from equimodal.scores.numbers import restored_states
from equimodal.scores.question import Question
from equimodal.step import Step

COMPILED = (
    ", and hooks on it would never run: attach the balancer first, then torch.compile the model"
)


def bare(model: nn.Module) -> nn.Module:
    """Return the user's model without the wrapper for several ranks."""
    return bare(model.module) if isinstance(model, DistributedDataParallel) else model


def _entries(output: Any) -> str:
    """Name what a model returned in place of a tensor."""
    return f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""


class Attachment:
    """A model with hooks: finds the features behind logits, and runs the head on others.

    Args:
        model: the user's model, wrapped by DistributedDataParallel or not.
        encoders: see `Modalities`.
        head: the fusion head, or None.
        features: where the head's inputs hold each feature, or None to find out.
        scores: where unimodal logits come from.
        criterion: the user's loss.

    Raises:
        SetupError: the model, its encoders and its head do not fit together.
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        head: nn.Module | str | None,
        features: Given | None,
        scores: Scores,
        criterion: Criterion,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise SetupError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
        self.model = model
        self.bare_model = bare(model)
        if "_orig_mod" in self.bare_model._modules:  # before its modules are looked up by name
            raise SetupError(f"the model is already compiled{COMPILED}")
        self.head = None if head is None else find_module(self.bare_model, "head", head)
        self.sharding = find_sharding(self.bare_model, self.head)
        self.modalities = Modalities(self.bare_model, encoders)
        self.criterion = criterion
        self.scores = scores
        self._refuse_misfits()
        places = {module: name for name, module in self.bare_model.named_modules()}
        self._places = {part: places[part] for _, part in self._parts()}
        scores.bind(self.modalities.names, self.head)
        self.layout: Layout | None = None
        self.keeps_encoders = False
        self.given = features
        self._output: Path | None = None
        self._transformed = False
        self.recorder = Recorder(self.bare_model, self.modalities, self.head)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        return self.modalities.names

    def step(
        self,
        logits: Tensor,
        target: Any,
        present: Mapping[str, Tensor] | None,
        indices: Tensor | None,
        epoch: int,
    ) -> Step:
        """Return the step that led to these logits.

        Raises:
            MatchError: no recorded forward did, or it does not fit.
        """
        if not isinstance(logits, Tensor):
            raise MatchError(
                f"balancer.loss: expected the logits as a tensor, found {type(logits).__name__}"
                f"{_entries(logits)}: pass the tensor that the loss is computed from"
            )
        if logits.ndim == 0:
            raise MatchError(
                "balancer.loss: expected the logits with the samples as first dimension, found a "
                "single number: pass what the loss is computed from, and the loss as criterion="
            )
        if logits.shape[0] == 0:
            raise MatchError(
                f"balancer.loss: the batch holds no sample, logits {tuple(logits.shape)}, of which "
                "a mean is NaN: leave it out"
            )
        try:
            call = self.recorder.match(logits)
            call.check_unchanged()
            self._compare(call, logits)
            self._output = call.output
            present = self._present(present, logits.shape[0])
            step = self._step(call, logits, target, present, indices, epoch)
            self.recorder.keeps_encoders = self.keeps_encoders or self.head is None
            self._refuse_missing(call, present)
        except MatchError:
            self._refuse_replaced()
            raise
        return step

    def observe(
        self, run: Callable[[], tuple[Any, ...]], indices: Tensor | None = None, epoch: int = 0
    ) -> Step:
        """Run the model as it is, with or without gradients, and return the step.

        Args:
            run: runs the model once, and returns the logits, or what it returned, and the target
                or None; then, if it knows, which samples have a modality, as for `Balancer.loss`.
            indices: which samples the batch holds, where known.
            epoch: counted from 0.
        """
        if self.layout is None and self.given is None:
            self._find_layout(run)
        with self.recorder.observe():
            (given, target, *told), seen = run(), self.recorder.take()
        if seen is None:
            raise MatchError("the model did not call its head: is this the head that it uses?")
        call, output = seen
        leaves = dict(tensors(output))
        found = [path for path, leaf in leaves.items() if leaf is given]
        found += [path for path in leaves if path == self._output or len(leaves) == 1]
        if not found:
            raise MatchError(
                f"the head returned {len(leaves)} tensors, and which of them are the logits shows "
                "at the first balancer.loss: call it before, or let the head return them alone"
            )
        path, logits = found[0], leaves[found[0]]
        call = replace(call, output=path, returned=logits)
        present = self._present(told[0] if told else None, logits.shape[0])
        return self._step(call, logits, target, present, indices, epoch)

    def _find_layout(self, run: Callable[[], object]) -> None:
        """Run the model once with a graph, as in training: only a graph tells the layout."""
        device = next((p.device for p in self.bare_model.parameters()), torch.device("cpu"))
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            evaluation(self.model),
            restored_states(device),
            torch.compiler.set_stance("force_eager"),
            self.recorder.observe(),
            self._without_wrapper(),
        ):
            try:
                run()
            except RuntimeError as error:
                if "nference tensors" not in str(error):
                    raise
                raise MatchError(
                    "which input of the head is which modality shows in a forward with gradients, "
                    "and these inputs were made under torch.inference_mode(): call "
                    "balancer.check(batch) or balancer.loss before, or give features="
                ) from error
            seen = self.recorder.take()
            if seen is not None:
                self._resolve(seen[0])

    @contextlib.contextmanager
    def _without_wrapper(self) -> Iterator[None]:
        """Keep DDP out of a forward that no backward pass follows: it would wait for one."""
        if self.model is self.bare_model:
            yield
            return
        before = self.model.__dict__.get("forward", self.bare_model)
        self.model.__dict__["forward"] = self.bare_model
        try:
            yield
        finally:
            if before is self.bare_model:
                del self.model.__dict__["forward"]
            else:
                self.model.__dict__["forward"] = before

    def copy_model(self) -> nn.Module:
        """Return a deep copy of the model, without a trace of the balancer."""
        refuse_copy(self.sharding)
        copied = copy.deepcopy(self.bare_model)
        self.recorder.strip(copied, self.bare_model)
        return copied

    def read(self, call: Call) -> Features:
        """Return the features that a call of the head was given."""
        return self._resolve(call).read(call.inputs)

    def gated(
        self, call: Call, gate: Callable[[Features], Mapping[str, Tensor]]
    ) -> tuple[Inputs, dict[str, Tensor]]:
        """Return the inputs of a call with every feature multiplied by its factors, and these."""
        features = self.read(call)
        assert self.layout is not None
        factors = dict(gate(features))
        return self.layout.write(call.inputs, scaled(features, factors)), factors

    def _step(
        self,
        call: Call,
        logits: Tensor,
        target: Any,
        present: Mapping[str, Tensor],
        indices: Tensor | None,
        epoch: int,
    ) -> Step:
        def run_scores(step: Step) -> dict[str, Tensor]:
            with call.precision(), self._whole_head(step):
                return self.scores.logits(step)

        return Step(
            names=self.names,
            features=self.read(call),
            logits=logits,
            target=target,
            criterion=self.criterion,
            run_head=lambda features: self._run_head(call, features, logits.shape),
            run_scores=run_scores,
            boundary=self.recorder.boundary,
            present=present,
            indices=indices,
            epoch=epoch,
            encoders=call.encoders,
            gates=call.gates,
            temperature=self.scores.temperature,
            autocast=call.autocast[2],
            compiled=call.compiled,
            handed_on=not self._transformed,
            question=lambda: self._question(call),
        )

    def _question(self, call: Call) -> Question:
        encoders = {part for _, m in self.modalities.encoder_modules() for part in m.modules()}
        if self._transformed:
            raise MatchError(TRANSFORMED)
        boundary, layout = self.recorder.boundary, self._resolve(call)
        return Question(
            name=type(boundary).__name__,
            modules=tuple(part for part in boundary.modules() if part not in encoders),
            layout=layout,
            inputs=call.inputs,
            output=call.output,
            run=lambda inputs: self._run_again(call, inputs),
        )

    def _whole_head(self, step: Step) -> contextlib.AbstractContextManager[object]:
        """Return where the head's parameters can be read, as a context manager."""
        if self.sharding is None:
            return contextlib.nullcontext()
        return self.sharding.whole_head(keep=step.logits.requires_grad)

    def _run_head(self, call: Call, features: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        if self._transformed:
            raise MatchError(TRANSFORMED)
        assert self.layout is not None
        inputs = self.layout.write(call.inputs, features)
        with call.precision():
            output = self._run_again(call, inputs)
        return dict(tensors(output))[call.output].reshape(-1, *shape[1:])

    def _run_again(self, call: Call, inputs: Inputs) -> Any:
        """Run what lies between features and logits on other inputs, recording nothing."""
        with self.recorder.pause():
            if self.head is not None:
                args, kwargs = inputs
                return self.head(*args, **kwargs)
            with self.recorder.substitute(inputs[1]):
                args, kwargs = call.model
                return self.bare_model(*args, **kwargs)

    def _resolve(self, call: Call) -> Layout:
        if self.layout is None:
            if self.given is not None:
                self.layout = given_layout(self.given, self.names, call.inputs)
            else:
                outputs = {name: call.outputs().get(name, []) for name in self.names}
                compiled = call.compiled or torch.compiler.is_compiling()
                self.layout = find_layout(call.inputs, outputs, self._frozen(), compiled)
        return self.layout

    def _frozen(self) -> set[str]:
        """Return the modalities of which nothing can be trained, and which may leave no graph."""
        trained = {
            name
            for name, module in self.modalities.encoder_modules()
            if any(parameter.requires_grad for parameter in module.parameters())
        }
        return set(self.names) - trained

    def _compare(self, call: Call, logits: Tensor) -> None:
        """Note whether the user's logits are what the head returned."""
        if torch.compiler.is_compiling():
            return  # no graph to look at; `match` has found the very tensor
        seen = self.recorder.seen if call.compiled else None
        compiled = None if seen is None else dict(tensors(seen[1])).get(call.output)
        self._transformed = not handed_on(logits, call, self.recorder._key, compiled)

    def _present(self, present: Mapping[str, Tensor] | None, size: int) -> Mapping[str, Tensor]:
        for name, mask in (present or {}).items():
            if name not in self.names:
                raise MatchError(f"present: no modality {name!r}, there are {list(self.names)}")
            if mask.dtype != torch.bool or mask.shape != (size,):
                raise MatchError(
                    f"present[{name!r}]: expected bool of shape ({size},), found "
                    f"{mask.dtype} of shape {tuple(mask.shape)}"
                )
        return present or {}

    def _refuse_missing(self, call: Call, present: Mapping[str, Tensor]) -> None:
        missing = [name for name in self.names if name not in {*call.encoders, *present}]
        if call.encoders and missing:
            raise MatchError(
                f"the encoder of {', '.join(missing)} did not run in this forward, while others "
                f"did. Features that are kept from another batch are not trained: encode every "
                "batch anew. Is the modality missing from the batch? Say so: loss(..., "
                f"present={{{missing[0]!r}: mask}}) with a mask of shape (B,) that is True for the "
                "samples that have it; forward= returns it as (logits, target, present)"
            )

    def _parts(self) -> list[tuple[str, nn.Module]]:
        parts = [("head", self.head)] if self.head is not None else []
        return parts + [(f"encoders['{n}']", m) for n, m in self.modalities.encoder_modules()]

    def _refuse_replaced(self) -> None:
        """Say of a forward that does not fit, where it is so, that another module has run."""
        now = dict(self.bare_model.named_modules())
        for name, part in self._parts():
            place = self._places[part]
            there = now.get(place)
            if part not in (there, getattr(there, "_orig_mod", None)):  # compiled, it still runs
                raise MatchError(
                    f"{name}, the model's {place!r}, was replaced after the balancer was made "
                    f"({type(part).__name__} by {type(there).__name__}): make the "
                    "balancer when the model is complete, after adapters such as LoRA are put in"
                )

    def _refuse_misfits(self) -> None:
        parts = self._parts()
        for module in self.model.modules():
            if isinstance(module, nn.DataParallel):
                raise SetupError(
                    "the model is wrapped in nn.DataParallel, which runs copies of it: use "
                    "DistributedDataParallel"
                )
            compiled = getattr(module, "_compiled_call_impl", None) is not None
            if compiled or "_orig_mod" in module._modules:
                inside = set(module.modules())
                for name, part in parts:
                    if part in inside:
                        raise SetupError(f"{name} is already compiled{COMPILED}")
        for name, encoder in self.modalities.encoder_modules():
            if self.head is None:
                continue
            if self.head in set(encoder.modules()):
                raise SetupError(
                    f"the head lies inside encoders['{name}']: name the module that takes the "
                    "features of all modalities as the head, and an encoder without it"
                )
            if encoder in set(self.head.modules()):
                raise SetupError(
                    f"encoders['{name}'] lies inside the head ({type(self.head).__name__}): name "
                    "the module that only fuses, or pass head=None"
                )
