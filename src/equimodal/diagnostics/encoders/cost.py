"""What a model costs: size and operations of its parts, time of a forward and of a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from equimodal.diagnostics.encoders.timing import MakeOptimizer, momentum, training_step, typical
from equimodal.diagnostics.subject import Subject
from equimodal.epochs.randomness import restored
from equimodal.errors import SetupError
from equimodal.scores import evaluation


@dataclass(frozen=True)
class Cost:
    """Size of the parts of a model, and what a forward and a training step take.

    Attributes:
        parameters: numbers that each encoder alone holds, by modality; trainable or not.
        head: numbers in the head that no encoder owns; None for a model without a head.
        shared: numbers that live in an encoder and somewhere else.
        rest: all other numbers of the model.
        flops: floating-point operations of the encoders per sample in a forward, by modality; as
            torch counts them: a product and a sum are two, and only products of matrices,
            convolutions and attention count.
        flops_head: of the head; None for a model without one.
        flops_rest: of all that is in neither.
        seconds: of the forward of one batch in evaluation mode, the median of some; for
            information: it depends on the machine and what else runs there.
        seconds_step: of a training step on that batch, likewise: forward, backward, and the
            optimizer's step, without reading data; None where none can be taken.
        untimed: then, why.
        batch: samples in that batch.
    """

    parameters: dict[str, int]
    head: int | None
    shared: int
    rest: int
    flops: dict[str, float]
    flops_head: float | None
    flops_rest: float
    seconds: float
    seconds_step: float | None
    untimed: str
    batch: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def cost(
    subject: Subject,
    loader: Iterable[Any],
    *,
    optimizer: MakeOptimizer = momentum,
    repeats: int = 5,
) -> Cost:
    """Return parameters, operations and time of a model, by its parts.

    Training steps are taken by a copy of the model in training mode: for their time there has to be
    memory for another one.

    Args:
        subject: the model.
        loader: of which the first batch is taken.
        optimizer: from parameters to an optimizer; SGD with momentum by default.
        repeats: forwards and training steps to time, after two that are not timed.

    Raises:
        SetupError: the loader is empty, or `repeats` is below 1.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = cost(subject, [batch(24)])
    >>> found.parameters, found.head, found.flops_head
    ({'audio': 99, 'visual': 106}, 51, 96.0)
    """
    if repeats < 1:
        raise SetupError(f"repeats: expected 1 or more, found {repeats}")
    attached, model = subject.attached, subject.model
    modalities = attached.modalities
    with restored(model, loader):
        batch = next(iter(loader), None)
        if batch is None:
            raise SetupError("cost: the loader gave no batch")
        (size,) = [step.size for step in subject.steps([batch])]
        device = next(attached.bare_model.parameters()).device
        forward = partial(subject.forward, model, batch)
        with attached.recorder.pause(), evaluation(model), torch.no_grad():
            spent, total = _operations(subject, forward)
            seconds = typical(forward, device, repeats)
            step, untimed = training_step(subject, batch, optimizer, device, repeats)
    owned = {
        name: sum(o.parameter.numel() for o in modalities.owned[name]) for name in subject.names
    }
    head = None
    rest = set(modalities.rest)
    shared = {p for n, p in attached.bare_model.named_parameters() if n in modalities.shared}
    if attached.head is not None:
        inside = set(attached.head.parameters()) & rest - shared
        head = sum(p.numel() for p in inside)
        rest -= inside
    return Cost(
        parameters=owned,
        head=head,
        shared=sum(p.numel() for p in shared),
        rest=sum(p.numel() for p in rest - shared),
        flops={name: spent[name] / size for name in subject.names},
        flops_head=None if attached.head is None else spent[None] / size,
        flops_rest=(total - sum(spent.values())) / size,
        seconds=seconds,
        seconds_step=step,
        untimed=untimed,
        batch=size,
    )


def _operations(subject: Subject, forward: Callable[[], Any]) -> tuple[dict[str | None, int], int]:
    """Return the operations of one forward: within each encoder and the head (None), and all."""
    attached = subject.attached
    parts: list[tuple[str | None, nn.Module]] = [*attached.modalities.encoder_modules()]
    parts += [] if attached.head is None else [(None, attached.head)]
    spent = dict.fromkeys([name for name, _ in parts], 0)
    with FlopCounterMode(display=False) as counter, contextlib.ExitStack() as hooks:

        def count(name: str | None, sign: int, *_: Any) -> None:
            spent[name] += sign * counter.get_total_flops()

        for name, module in parts:
            before = module.register_forward_pre_hook(partial(count, name, -1))
            after = module.register_forward_hook(partial(count, name, 1))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        forward()
    return spent, counter.get_total_flops()
