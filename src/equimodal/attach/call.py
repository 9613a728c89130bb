"""What is known of one forward of the head."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from equimodal.attach.calls import Calls, EncoderCall, Ran, Versions, versions
from equimodal.attach.features import Inputs, Path, detached, tensors
from equimodal.errors import MatchError


@dataclass(frozen=True)
class Call:
    """One forward of the head; of the whole model where it has no head.

    Attributes:
        inputs: positional and keyword arguments that the head was given, before any gate. Without
            a head: no positional arguments, and what each encoder returned as keywords.
        calls: for each modality that ran all calls of its encoder, in order.
        autocast: device type, dtype and whether autocast was on, to run the head again alike.
        training: whether the head was in training mode.
        compiled: whether it ran in compiled code.
        versions: of the input tensors before the head ran.
        model: the arguments of the whole model, where it has no head.
        changes: of the tensors among these, before the model ran.
        output: where among the tensors that the head returned the user's logits are.
        returned: how many elements that tensor has.
        leaves: how many tensors the head returned.
        gates: what the features were multiplied by before the head ran, by modality; None where
            nothing could do so.
        near: those of the calls that made the features, where this was asked.
        held: which parameters the head held, see `Holding`; empty where nobody looked.
    """

    inputs: Inputs
    calls: dict[str, tuple[EncoderCall, ...]]
    autocast: tuple[str, torch.dtype, bool]
    versions: Versions = None
    model: Inputs = ((), {})
    changes: Versions = None
    output: Path = ()
    returned: int | None = None
    leaves: int = 1
    gates: dict[str, Tensor] | None = None
    training: bool = True
    compiled: bool = False
    near: Calls | None = None
    held: tuple[int, ...] = ()

    @property
    def encoders(self) -> Ran:
        """For each modality that ran what its encoder was given and what it returned."""
        return Ran(self.made)

    @property
    def made(self) -> Calls:
        """The calls that made the features."""
        return self.calls if self.near is None else self.near

    def tensors(self) -> list[Tensor]:
        """Return the tensors that the head was given and that encoders returned."""
        given = [tensor for _, tensor in tensors(self.inputs)]
        return given + [tensor for of in self.outputs().values() for tensor in of]

    def without_graph(self) -> Call:
        """Return the call with tensors that need no gradient."""
        calls = {
            name: tuple(
                replace(c, output=detached(c.output), inputs=detached(c.inputs)) for c in of
            )
            for name, of in self.calls.items()
        }
        twins = {
            id(call): twin
            for name, of in self.calls.items()
            for call, twin in zip(of, calls[name], strict=True)
        }
        near = {name: [twins[id(call)] for call in of] for name, of in self.made.items()}
        return replace(
            self, calls=calls, near=near, inputs=detached(self.inputs), model=detached(self.model)
        )

    def outputs(self) -> dict[str, list[Tensor]]:
        """Return for each modality the tensors that its encoder returned, in all calls."""
        return {
            name: [tensor for call in calls for _, tensor in tensors(call.output)]
            for name, calls in self.calls.items()
        }

    def check_unchanged(self) -> None:
        """Refuse features that were overwritten since the head was given them.

        Raises:
            MatchError: a tensor has been changed in place.
        """
        if self.versions is not None and self.versions != versions(self.inputs):
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
