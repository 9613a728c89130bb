"""The head, or a model's fusion, on other features than those it was given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.axes import Axes
from equimodal.attach.call import Call
from equimodal.attach.calls import apart
from equimodal.attach.capture import Recorder
from equimodal.attach.features import Features, Inputs, Path, tensors
from equimodal.attach.places import Places, refuse_unplaced, with_gradients
from equimodal.attach.reader import Reader
from equimodal.attach.rerun import model_again, refuse_changed_inputs, unnoticed
from equimodal.attach.sharding import Sharding
from equimodal.system.modes import evaluation


class Runner:
    """Runs the head again, and knows how its features and its logits lie.

    Args:
        model: the user's, without a wrapper.
        head: the fusion head, or None.
        reader: reads and writes features.
        recorder: its hooks, which pause meanwhile.
        sharding: how the model is sharded, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module | None,
        reader: Reader,
        recorder: Recorder,
        sharding: Sharding | None,
    ) -> None:
        self.places, self.axes = Places(), Axes()
        self._model, self._head, self._sharding = model, head, sharding
        self._reader, self._recorder = reader, recorder

    def whole_head(self, logits: Tensor) -> contextlib.AbstractContextManager[object]:
        """Return where the head's parameters can be read, as a context manager."""
        if self._sharding is None:
            return contextlib.nullcontext()
        return self._sharding.whole_head(keep=logits.requires_grad)

    def answer(self, call: Call, raw: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        """Return the logits of features as the head takes them, in the mode that it is in."""
        output, training = self._run(call, raw), self._recorder.boundary.training
        path, leaves = call.output, dict(tensors(output))
        if training != call.training and not torch.compiler.is_compiling():
            told = self.places.find(training, output, partial(self._again, call, raw))
            if told is None:
                raise refuse_unplaced(output, training)
            path = told
        if path not in leaves:
            raise refuse_unplaced(output, training)
        return leaves[path].reshape(-1, *shape[1:])

    def _run(self, call: Call, raw: Mapping[str, Tensor]) -> Any:
        """Run the head, or the fusion of the model without one, on features as it takes them."""
        return self.on(call, self._reader.written(call, raw))

    def on(self, call: Call, inputs: Inputs) -> Any:
        """Run the head, or the fusion of the model without one, on other inputs of a call."""
        args, kwargs = inputs
        with self._recorder.pause(), call.precision():
            if self._head is not None:
                compiling = torch.compiler.is_compiling()
                with contextlib.nullcontext() if compiling else unnoticed(self._head):
                    return self._head(*args, **kwargs)
            refuse_changed_inputs(call.changes, call.model)
            outputs = {
                id(each): output
                for name, calls in call.made.items()
                for each, output in zip(calls, apart(kwargs[name], calls), strict=True)
            }
            return model_again(self._model, call.model, call.calls, outputs)

    def _again(self, call: Call, raw: Mapping[str, Tensor]) -> tuple[Any, Iterable[Tensor]]:
        """Run the head with gradients, and return its output and where its graph begins."""
        with with_gradients():
            leaves = {
                name: feature.detach().clone().requires_grad_(feature.is_floating_point())
                for name, feature in raw.items()
            }
            return self._run(call, leaves), [*leaves.values(), *call.tensors()]

    def looked(self, call: Call, ends: Iterable[Tensor]) -> tuple[Any, Iterable[Tensor]]:
        """Run the head of an observed call with gradients: see `Places.find`."""
        call = self._reader.narrowed(call, ends)
        return self._again(call, self._reader.read(call, ends))

    def place(self, call: Call, logits: Tensor, training: bool) -> Path:
        """Return where among what is returned in one mode the logits of a call are.

        Raises:
            MatchError: in evaluation mode nothing tells.
        """
        if training or not call.training:
            return call.output
        with evaluation(self._recorder.boundary), torch.no_grad():
            raw = self._reader.read(call, [logits])
            output = self._run(call, raw)
            found = self.places.find(training, output, partial(self._again, call, raw))
        if self._sharding is not None:
            self._sharding.gather_head()  # to run it has freed them
        if found is None:
            raise refuse_unplaced(output, training)
        return found

    def learn_axes(self, call: Call, raw: Features, logits: Tensor) -> None:
        """Find out along which dimension of the features the samples lie, where in doubt."""
        size = logits.shape[0]
        if torch.compiler.is_compiling() or call.compiled:
            return
        if self.axes.doubtful(raw, size):
            with self.whole_head(logits), evaluation(self._recorder.boundary), with_gradients():
                self.axes.learn(raw, size, lambda f: self.answer(call, f, logits.shape))
            self.axes.refuse_gated(call.gates or {}, size)
