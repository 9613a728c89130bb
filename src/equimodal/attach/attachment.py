"""The balancer's hold on a model: from logits to the step that led to them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
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
from equimodal.attach.sharding import find_sharding, refuse_copy
from equimodal.criterion import Criterion
from equimodal.errors import MatchError, SetupError
from equimodal.modalities import Encoders, Modalities, find_module
from equimodal.scores import Scores
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
        self._compared = False
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
        with self.recorder.observe():
            (given, target, *told), seen = run(), self.recorder.take()
            if seen is not None and self._resolve(seen[0], must=False) is None:
                with torch.enable_grad():  # gradients tell which input is which modality
                    given, target, *told = run()
                seen = self.recorder.take()
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

    def copy_model(self) -> nn.Module:
        """Return a deep copy of the model, without a trace of the balancer."""
        refuse_copy(self.sharding)
        copied = copy.deepcopy(self.bare_model)
        self.recorder.strip(copied, self.bare_model)
        return copied

    def read(self, call: Call) -> Features:
        """Return the features that a call of the head was given, in the order of the encoders."""
        layout = self._resolve(call)
        assert layout is not None
        found = layout.read(call.inputs)  # one tensor may hold them in another order
        return {name: found[name] for name in self.names}

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
        )

    def _whole_head(self, step: Step) -> contextlib.AbstractContextManager[object]:
        """Return where the head's parameters can be read, as a context manager."""
        if self.sharding is None:
            return contextlib.nullcontext()
        return self.sharding.whole_head(keep=step.logits.requires_grad)

    def _run_head(self, call: Call, features: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        if self._transformed:
            raise MatchError(
                "the logits given to balancer.loss are not what the head returned, so running the "
                "head on other features does not give logits that compare: let the head include "
                "the last operations, or use scores that do not run it, such as eq.Probe()"
            )
        assert self.layout is not None
        inputs = self.layout.write(call.inputs, features)
        with self.recorder.pause(), call.precision():
            if self.head is not None:
                args, kwargs = inputs
                output = self.head(*args, **kwargs)
            else:
                with self.recorder.substitute(inputs[1]):
                    args, kwargs = call.model
                    output = self.bare_model(*args, **kwargs)
        return dict(tensors(output))[call.output].reshape(-1, *shape[1:])

    def _resolve(self, call: Call, must: bool = True) -> Layout | None:
        if self.layout is None:
            try:
                if self.given is not None:
                    self.layout = given_layout(self.given, self.names, call.inputs)
                else:
                    outputs = {name: call.outputs().get(name, []) for name in self.names}
                    self.layout = find_layout(call.inputs, outputs)
            except MatchError:
                if must:
                    raise
        return self.layout

    def _compare(self, call: Call, logits: Tensor) -> None:
        """Note, once, whether the user's logits are what the head returned."""
        if torch.compiler.is_compiling():
            return  # it cannot look at values; `match` has found the very tensor
        if not self._compared and call.returned is not None:
            returned, given = call.returned.float().flatten(), logits.detach().float().flatten()
            same = returned.shape == given.shape
            self._transformed = not (
                same and torch.allclose(returned, given, rtol=0, atol=0, equal_nan=True)
            )
            self._compared = True

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
                    "the module that only fuses, or pass head=None and scores="
                )
