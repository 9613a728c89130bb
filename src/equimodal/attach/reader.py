"""Where a call of the head holds its features: found out once, then read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.call import Call
from equimodal.attach.calls import Near, together
from equimodal.attach.discovery import beside, find_layout, told_apart
from equimodal.attach.features import (
    Concatenated,
    Features,
    Given,
    Inputs,
    Layout,
    Separate,
    given_layout,
    refuse_unknown,
    tensors,
)
from equimodal.attach.misfits import Misfits
from equimodal.attach.outputs import of_outputs
from equimodal.attach.summed import Summed, find_sum, with_summands
from equimodal.errors import MatchError
from equimodal.modalities import Modalities


class Reader:
    """Finds the layout of a head's inputs, and reads and writes features by it.

    Args:
        modalities: the encoders.
        head: the fusion head, or None.
        given: where the user said that the features are, or None to find out.
        misfits: who knows what took part without being called.

    Attributes:
        layout: what was found.
        needs_calls: whether somebody asks what an encoder was given for its feature.
    """

    def __init__(
        self,
        modalities: Modalities,
        head: nn.Module | None,
        given: Given | None,
        misfits: Misfits,
    ) -> None:
        refuse_unknown(given, modalities.names)
        self.layout: Layout | None = None
        self.needs_calls = False
        self.given = given
        self.near = Near()
        self._modalities, self._misfits = modalities, misfits
        self._head = head
        self._beside: MatchError | None = None  # what follows from features beside them

    @property
    def needs_outputs(self) -> bool:
        """Whether features are read from what the encoders returned."""
        return self._head is None or isinstance(self.layout, Summed)

    def searches(self) -> bool:
        """Whether it is still to be found out which input is which modality."""
        return self.layout is None and self.given is None

    def narrowed(self, call: Call, ends: Iterable[Tensor]) -> Call:
        """Return the call with those calls of the encoders alone that made its features."""
        if self._head is None:
            made = self.near.find(call.calls, ends, call.compiled)
            outputs = {name: together(name, calls) for name, calls in made.items()}
            return replace(call, inputs=((), outputs), near=made)
        if self.needs_calls:
            given = [tensor for _, tensor in tensors(call.inputs)]
            return replace(call, near=self.near.find(call.calls, given, call.compiled))
        return call

    def told(self, seen: tuple[Call, Any]) -> bool:
        """Whether a forward without gradients shows all that there is to be found out."""
        call, _ = seen
        if self._head is None or self.needs_calls:
            if self.near.look(call.calls):
                return False
            call = self.narrowed(call, [])
        return self.resolve(call, [], must=False) is not None

    def read(self, call: Call, ends: Iterable[Tensor] = ()) -> Features:
        """Return the features as the head takes them."""
        layout = self.resolve(call, ends)
        assert layout is not None
        found = layout.read(self.opened(call))  # one tensor may hold them in another order
        return {name: found[name] for name in self._modalities.names}

    def written(self, call: Call, raw: Mapping[str, Tensor]) -> Inputs:
        """Return the inputs of a call with these features in place of its own.

        Raises:
            MatchError: the head was given something beside the features that follows from them: a
                head may tell what a modality does alone whatever that is, but cannot be run again.
        """
        layout = self.resolve(call, [])
        assert layout is not None
        if self._beside is not None:
            raise self._beside
        return layout.write(self.opened(call), raw)

    def resolve(self, call: Call, ends: Iterable[Tensor], must: bool = True) -> Layout | None:
        """Return the layout, found out from a call where it is not known yet.

        Args:
            call: with its graph.
            ends: the logits, with theirs.
            must: whether to raise what is wrong, or return None.
        """
        if self.layout is None:
            try:
                if self._head is None:
                    found = of_outputs(self.given, self._modalities, call, ends, self._misfits)
                elif self.given is not None:
                    found = given_layout(self.given, call.inputs)
                    traced = call.compiled or torch.compiler.is_compiling()
                    if isinstance(found, Concatenated) and not traced:
                        found = told_apart(self.given, call.inputs, call.outputs())
                else:
                    found = self._of_inputs(call)
                self.layout = found
            except MatchError:
                if must:
                    raise
        return self.layout

    def opened(self, call: Call) -> Inputs:
        """Return the inputs of a call, with the summands of a sum beside it."""
        if not isinstance(self.layout, Summed):
            return call.inputs
        return with_summands(
            call.inputs, {name: call.outputs().get(name, []) for name in self._modalities.names}
        )

    def _of_inputs(self, call: Call) -> Layout:
        outputs = {name: call.outputs().get(name, []) for name in self._modalities.names}
        outputs |= self._misfits.uncalled(call, [tensor for _, tensor in tensors(call.inputs)])
        compiled = call.compiled or torch.compiler.is_compiling()
        found: Separate | Concatenated | Summed
        try:
            found = find_layout(call.inputs, outputs, self._modalities.frozen(), compiled)
        except MatchError:
            total = None if call.compiled else find_sum(call.inputs, outputs)
            if total is None:
                raise
            found = total
        self._beside = beside(found.places, call.inputs, outputs, compiled)
        if self._beside is not None and not hasattr(self._head, "unimodal_logits"):
            raise self._beside
        return found
