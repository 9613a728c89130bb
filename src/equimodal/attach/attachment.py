"""The balancer's hold on a model: from logits to the step that led to them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.axes import Axes
from equimodal.attach.calls import Near, apart, together
from equimodal.attach.capture import Call, Recorder
from equimodal.attach.discovery import find_layout
from equimodal.attach.features import (
    Features,
    Given,
    Inputs,
    Layout,
    given_layout,
    scaled,
    tensors,
)
from equimodal.attach.misfits import (
    Head,
    Misfits,
    bare,
    find_head,
    refuse_shapeless,
    refuse_unseen,
    told_present,
)
from equimodal.attach.export import without_graphs
from equimodal.attach.outputs import of_outputs
from equimodal.attach.places import Places, refuse_unplaced, with_gradients
from equimodal.attach.rerun import model_again, refuse_changed_inputs, unnoticed
from equimodal.attach.sharding import find_sharding, refuse_copy
from equimodal.attach.summed import Summed, beside, find_sum
from equimodal.criterion import Criterion
from equimodal.errors import MatchError
from equimodal.modalities import Encoders, Modalities
from equimodal.scores import Scores, evaluation
from equimodal.step import Step


class Attachment:
    """A model with hooks: finds the features behind logits, and runs the head on others.

    Args:
        model: the user's model, wrapped by DistributedDataParallel or not.
        encoders: see `Modalities`.
        head: the fusion head, several modules that run in a row, or None.
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
        head: Head | None,
        features: Given | None,
        scores: Scores,
        criterion: Criterion,
    ) -> None:
        self.model = model
        self.bare_model = bare(model)
        self.head = find_head(self.bare_model, head)
        self.sharding = find_sharding(self.bare_model, self.head)
        self.modalities = Modalities(self.bare_model, encoders)
        self.criterion = criterion
        self.scores = scores
        self.recorder = Recorder(self.bare_model, self.modalities, self.head)
        self.misfits = Misfits(self.bare_model, self.modalities, self.head, self.recorder.called)
        self.misfits.refuse(model)
        scores.bind(self.modalities.names, self.head)
        self.layout: Layout | None = None
        self.keeps_encoders = False
        self.given = features
        self._places, self._axes = Places(), Axes()
        self._compared = False
        self._transformed = False
        self._near = Near()

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        return self.modalities.names

    def described(self) -> dict[str, Any]:
        """Return encoders and head by name, as a balancer of a copy of the model takes them."""
        encoders = self.modalities.places(self.bare_model)
        return {"encoders": encoders, "head": self.misfits.head_places()}

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
        refuse_shapeless(logits)
        try:
            call = self.recorder.match(logits)
            call.check_unchanged()
            call = self._narrowed(call, [logits])
            self._compare(call, logits)
            self._places.note(call.training, call.output)
            if call.leaves > 1 and not torch.compiler.is_compiling():
                self._places.note_makers(logits, call.tensors())
            present = told_present(present, self.names, logits.shape[0])
            step = self._step(call, logits, target, present, indices, epoch)
            self.recorder.keeps_encoders = (
                self.keeps_encoders or self.head is None or isinstance(self.layout, Summed)
            )
            self.misfits.refuse_missing(call, present, logits)
        except MatchError:
            self.misfits.refuse_replaced()
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
        gradients = torch.is_grad_enabled()
        with self.recorder.observe():
            with torch.set_grad_enabled(gradients or self._near.needed):
                (given, target, *told), seen = run(), self.recorder.take()
            if seen is not None and not gradients and not self._told(seen):
                with torch.enable_grad():  # gradients tell which input is which modality
                    given, target, *told = run()
                seen = self.recorder.take()
        if seen is None:
            raise MatchError("the model did not call its head: is this the head that it uses?")
        call, output = seen
        leaves = dict(tensors(output))
        path = next((path for path, leaf in leaves.items() if leaf is given), None)
        if path is not None and len(leaves) > 1:
            self._places.note(call.training, path)
        if path is None:
            path = self._places.find(
                call.training, output, partial(self._looked, call, leaves.values())
            )
        if path is None:
            raise refuse_unseen(output)
        logits = leaves[path]
        call = replace(call, output=path, returned=logits, leaves=len(leaves))
        call = self._narrowed(call, [logits])
        self._resolve(call, [logits])
        if logits.requires_grad and not gradients:
            call, logits = call.without_graph(), logits.detach()
        present = told_present(told[0] if told else None, self.names, logits.shape[0])
        return self._step(call, logits, target, present, indices, epoch)

    def copy_model(self) -> nn.Module:
        """Return a deep copy of the model, without a trace of the balancer."""
        refuse_copy(self.sharding)
        copied = copy.deepcopy(self.bare_model, without_graphs(self.bare_model))
        self.recorder.strip(copied, self.bare_model)
        return copied

    def read(self, call: Call) -> Features:
        """Return the features that a call of the head was given, shape ``(B, ...)``."""
        return self._axes.front(self._raw(call))

    def gated(
        self, call: Call, gate: Callable[[Features], Mapping[str, Tensor]]
    ) -> tuple[Inputs, dict[str, Tensor]]:
        """Return the inputs of a call with every feature multiplied by its factors, and these."""
        features = self.read(call)
        factors = dict(gate(features))
        return self._written(call, scaled(features, factors)), factors

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
            if getattr(getattr(self.scores, "chosen", None) or self.scores, "fill", "") == "mean":
                self._axes.refuse(step.features, step.size)
            with call.precision(), self._whole_head(step.logits):
                unimodal = self.scores.logits(step)
            if any(alone.shape[:1] != step.logits.shape[:1] for alone in unimodal.values()):
                self._axes.refuse(step.features, step.size)
            return unimodal

        raw = self._raw(call, [logits])
        self._learn_axes(call, raw, logits)
        return Step(
            names=self.names,
            features=self._axes.front(raw),
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

    def _whole_head(self, logits: Tensor) -> contextlib.AbstractContextManager[object]:
        """Return where the head's parameters can be read, as a context manager."""
        if self.sharding is None:
            return contextlib.nullcontext()
        return self.sharding.whole_head(keep=logits.requires_grad)

    def _run_head(self, call: Call, features: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        if self._transformed:
            raise MatchError(
                "the logits given to balancer.loss are not what the head returned, so running the "
                "head on other features does not give logits that compare: let the head include "
                "the last operations, or use scores that do not run it, such as eq.Probe()"
            )
        return self._answer(call, self._axes.back(features), shape)

    def _answer(self, call: Call, raw: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        """Return the logits of features as the head takes them, in the mode that it is in."""
        output, training = self._run(call, raw), self.recorder.boundary.training
        path, leaves = call.output, dict(tensors(output))
        if training != call.training and not torch.compiler.is_compiling():
            told = self._places.find(training, output, partial(self._again, call, raw))
            if told is None:
                raise refuse_unplaced(output, training)
            path = told
        if path not in leaves:
            raise refuse_unplaced(output, training)
        return leaves[path].reshape(-1, *shape[1:])

    def _run(self, call: Call, raw: Mapping[str, Tensor]) -> Any:
        """Run the head, or the fusion of the model without one, on features as it takes them."""
        args, kwargs = self._written(call, raw)
        with self.recorder.pause(), call.precision():
            if self.head is not None:
                compiling = torch.compiler.is_compiling()
                with contextlib.nullcontext() if compiling else unnoticed(self.head):
                    return self.head(*args, **kwargs)
            refuse_changed_inputs(call.changes, call.model)
            outputs = {
                id(each): output
                for name, calls in call.made.items()
                for each, output in zip(calls, apart(kwargs[name], calls), strict=True)
            }
            return model_again(self.bare_model, call.model, call.calls, outputs)

    def _again(self, call: Call, raw: Mapping[str, Tensor]) -> tuple[Any, Iterable[Tensor]]:
        """Run the head with gradients, and return its output and where its graph begins."""
        with with_gradients():
            leaves = {
                name: feature.detach().clone().requires_grad_(feature.is_floating_point())
                for name, feature in raw.items()
            }
            return self._run(call, leaves), [*leaves.values(), *call.tensors()]

    def _looked(self, call: Call, ends: Iterable[Tensor]) -> tuple[Any, Iterable[Tensor]]:
        call = self._narrowed(call, ends)
        return self._again(call, self._raw(call, ends))

    def _narrowed(self, call: Call, ends: Iterable[Tensor]) -> Call:
        """Return the call with those calls of the encoders alone that made its features."""
        if self.head is None:
            made = self._near.find(call.calls, ends, call.compiled)
            outputs = {name: together(name, calls) for name, calls in made.items()}
            return replace(call, inputs=((), outputs), near=made)
        if self.keeps_encoders:
            given = [tensor for _, tensor in tensors(call.inputs)]
            return replace(call, near=self._near.find(call.calls, given, call.compiled))
        return call

    def _told(self, seen: tuple[Call, Any]) -> bool:
        """Whether a forward without gradients shows all that there is to be found out."""
        call, output = seen
        if self.head is None or self.keeps_encoders:
            if self._near.look(call.calls):
                return False
            call = self._narrowed(call, [])
        return self._resolve(call, [], must=False) is not None

    def _raw(self, call: Call, ends: Iterable[Tensor] = ()) -> Features:
        """Return the features as the head takes them."""
        layout = self._resolve(call, ends)
        assert layout is not None
        return layout.read(self._opened(call))

    def _written(self, call: Call, raw: Mapping[str, Tensor]) -> Inputs:
        layout = self._resolve(call, [])
        assert layout is not None
        return layout.write(self._opened(call), raw)

    def _opened(self, call: Call) -> Inputs:
        if not isinstance(self.layout, Summed):
            return call.inputs
        return beside(call.inputs, {name: call.outputs().get(name, []) for name in self.names})

    def _resolve(self, call: Call, ends: Iterable[Tensor], must: bool = True) -> Layout | None:
        if self.layout is None:
            try:
                if self.head is None:
                    found = of_outputs(self.given, self.modalities, call, ends, self.misfits)
                elif self.given is not None:
                    found = given_layout(self.given, self.names, call.inputs)
                else:
                    found = self._of_inputs(call)
                self.layout = found
            except MatchError:
                if must:
                    raise
        return self.layout

    def _of_inputs(self, call: Call) -> Layout:
        outputs = {name: call.outputs().get(name, []) for name in self.names}
        outputs |= self.misfits.uncalled(call, [tensor for _, tensor in tensors(call.inputs)])
        try:
            return find_layout(call.inputs, outputs)
        except MatchError:
            found = None if call.compiled else find_sum(call.inputs, outputs)
            if found is None:
                raise
            return found

    def _learn_axes(self, call: Call, raw: Features, logits: Tensor) -> None:
        """Find out along which dimension of the features the samples lie, where in doubt."""
        size = logits.shape[0]
        if torch.compiler.is_compiling() or call.compiled or self._transformed:
            return
        if self._axes.doubtful(raw, size):
            with self._whole_head(logits), evaluation(self.recorder.boundary), with_gradients():
                self._axes.learn(raw, size, lambda f: self._answer(call, f, logits.shape))
            self._axes.refuse_gated(call.gates or {}, size)

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
