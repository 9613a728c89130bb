"""The balancer's hold on a model: from logits to the step that led to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.adapted import refuse_replaced
from equimodal.attach.call import Call
from equimodal.attach.capture import Recorder
from equimodal.attach.copying import without_graphs
from equimodal.attach.features import Features, Given, Inputs, Layout, scaled, tensors
from equimodal.attach.first import with_a_graph
from equimodal.attach.handed import TRANSFORMED, handed_on
from equimodal.attach.held import FOREIGN
from equimodal.attach.misfits import (
    Head,
    Misfits,
    bare,
    find_head,
    refuse_shapeless,
    refuse_unseen,
    told_present,
)
from equimodal.attach.observed import refuse_several
from equimodal.attach.reader import Reader
from equimodal.attach.running import Runner
from equimodal.attach.sharding import find_sharding, refuse_copy
from equimodal.criterion import Criterion
from equimodal.errors import MatchError
from equimodal.modalities import Encoders, Modalities
from equimodal.scores import Scores
from equimodal.scores.question import Question
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
        refuse_replaced(self.bare_model, self.modalities)
        self.criterion = criterion
        self.scores = scores
        self.recorder = Recorder(self.bare_model, self.modalities, self.head)
        self.misfits = Misfits(self.bare_model, self.modalities, self.head, self.recorder.called)
        self.misfits.refuse(model, told=features is not None)
        scores.bind(self.modalities.names, self.head)
        self.given = features
        self.reader = Reader(self.modalities, self.head, features, self.misfits)
        self.recorder.traces = self.reader.searches
        self.runner = Runner(self.bare_model, self.head, self.reader, self.recorder, self.sharding)
        self._transformed = ""  # why the head cannot be asked about the user's logits
        self._unlinked = False  # the head gives logits, and the forward makes the outputs of them

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        return self.modalities.names

    @property
    def layout(self) -> Layout | None:
        """How the head takes its features, once it is known."""
        return self.reader.layout

    @layout.setter
    def layout(self, layout: Layout | None) -> None:
        self.reader.layout = layout

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
            self.criterion.tell(logits, target)
            self._compare(call, logits)
            call = self.reader.narrowed(call, [logits])
            self.runner.places.note(call.training, call.output)
            if call.leaves > 1 and not torch.compiler.is_compiling():
                self.runner.places.note_makers(logits, call.tensors())
            present = told_present(present, self.names, logits.shape[0])
            step = self._step(call, logits, target, present, indices, epoch)
            self._keep_less()
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
        if self.layout is None and self.given is None:
            self._find_layout(run)
        with self.recorder.observe():
            with torch.set_grad_enabled(gradients or self.reader.near.needed):
                given, target, *told = run()
            seen = self.recorder.take(given)
            several = self.recorder.several > 1
            unseen = not self.reader.told(seen) if seen is not None else several
            if unseen and not gradients:
                with torch.enable_grad():  # gradients tell which input is which modality
                    given, target, *told = run()
                seen = self.recorder.take(given)
        if seen is None and self.recorder.several:
            raise refuse_several(self.recorder.several)
        if seen is None:
            raise MatchError("the model did not call its head: is this the head that it uses?")
        call, output = seen
        leaves = dict(tensors(output))
        path = next((path for path, leaf in leaves.items() if leaf is given), None)
        if path is not None and len(leaves) > 1:
            self.runner.places.note(call.training, path)
        if path is None:
            path = self.runner.places.find(
                call.training, output, partial(self.runner.looked, call, leaves.values())
            )
        if path is None:
            raise refuse_unseen(output)
        logits = leaves[path]
        same_shape = isinstance(given, Tensor) and given.shape == logits.shape
        self.criterion.tell(given if same_shape else logits, target)
        call = replace(call, output=path, returned=logits.numel(), leaves=len(leaves))
        call = self.reader.narrowed(call, [logits])
        self.reader.resolve(call, [logits])
        if logits.requires_grad and not gradients:
            call, logits = call.without_graph(), logits.detach()
        if self._unlinked:
            logits = self.criterion.outputs.of(logits)
        present = told_present(told[0] if told else None, self.names, logits.shape[0])
        return self._step(call, logits, target, present, indices, epoch)

    def _find_layout(self, run: Callable[[], tuple[Any, ...]]) -> None:
        """Run the model once with a graph, as in training: only a graph tells the layout."""
        with self.recorder.observe(), with_a_graph(self.model):
            given, *_ = run()
            seen = self.recorder.take(given)
            if seen is None:
                return
            call, output = seen
            leaves = [tensor for _, tensor in tensors(output)]
            ends = [leaf for leaf in leaves if leaf is given] or leaves
            self.reader.resolve(self.reader.narrowed(call, ends), ends)
        self._keep_less()

    def _keep_less(self) -> None:
        """Leave it to the features what the encoders returned, once it is known where they are."""
        self.recorder.keeps_encoders = self.reader.needs_calls or self.reader.needs_outputs

    def copy_model(self) -> nn.Module:
        """Return a deep copy of the model, without a trace of the balancer."""
        refuse_copy(self.sharding)
        copied = copy.deepcopy(self.bare_model, without_graphs(self.bare_model))
        self.recorder.strip(copied, self.bare_model)
        return copied

    def read(self, call: Call) -> Features:
        """Return the features that a call of the head was given, shape ``(B, ...)``."""
        return self.runner.axes.front(self.reader.read(call))

    def gated(
        self, call: Call, gate: Callable[[Features], Mapping[str, Tensor]]
    ) -> tuple[Inputs, dict[str, Tensor]]:
        """Return the inputs of a call with every feature multiplied by its factors, and these."""
        features = self.read(call)
        factors = dict(gate(features))
        return self.reader.written(call, scaled(features, factors)), factors

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
                self.runner.axes.refuse(step.features, step.size)
            with call.precision(), self.runner.whole_head(step.logits):
                unimodal = self.scores.logits(step)
            if any(alone.shape[:1] != step.logits.shape[:1] for alone in unimodal.values()):
                self.runner.axes.refuse(step.features, step.size)
            return unimodal

        raw = self.reader.read(call, [logits])
        if not self._transformed:
            self.runner.learn_axes(call, raw, logits)
        return Step(
            names=self.names,
            features=self.runner.axes.front(raw),
            logits=self.criterion.outputs.logits(logits),
            outputs=logits,
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
            question=lambda: self._question(call, logits),
        )

    def _question(self, call: Call, logits: Tensor) -> Question:
        if self._transformed:
            raise MatchError(self._transformed)
        encoders = {part for _, m in self.modalities.encoder_modules() for part in m.modules()}
        boundary, layout = self.recorder.boundary, self.reader.resolve(call, [logits])
        assert layout is not None
        return Question(
            name=type(boundary).__name__,
            modules=tuple(part for part in boundary.modules() if part not in encoders),
            layout=layout,
            inputs=self.reader.opened(call),
            outputs={mode: self.runner.place(call, logits, mode) for mode in (True, False)},
            run=lambda inputs: self.runner.on(call, inputs),
        )

    def _compare(self, call: Call, logits: Tensor) -> None:
        """Note whether the user's logits are what the head returned."""
        if torch.compiler.is_compiling():
            return  # no graph to look at; `match` has found the very tensor
        seen = self.recorder.seen if call.compiled else None
        compiled = None if seen is None else dict(tensors(seen[1])).get(call.output)
        link = self.criterion.outputs.link
        handed = handed_on(logits, call, self.recorder._key, compiled, link)
        foreign = self.sharding is None and call.held not in ((), self.recorder.holding.now())
        self._transformed = FOREIGN if foreign else TRANSFORMED if handed == "otherwise" else ""
        self._unlinked = handed == "linked"

    def _run_head(self, call: Call, features: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        if self._transformed:
            raise MatchError(self._transformed)
        given = self.runner.answer(call, self.runner.axes.back(features), shape)
        return given if self._unlinked else self.criterion.outputs.logits(given)
