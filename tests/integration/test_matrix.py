"""Every method in every loop that a user may write: equal to the truth, or refused.

The truth is the same training without the peculiarity: a batch whose gradients were dropped is one
that was never backpropagated, gradients that were multiplied by a factor are those of a loss that
was, an update that overflowed is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from support.settings import METHODS, VARIANTS

ALL = {**METHODS, **VARIANTS, "ogm, probe": lambda: eq.OGM(0.8)}
SCALE = 2.0**10


class Training:
    """Two epochs of three batches; what is peculiar happens at the second batch of each."""

    def __init__(self, name: str, fused: bool = False, **settings: Any) -> None:
        make = ALL[name]
        torch.manual_seed(0)
        self.model: Any = getattr(make, "tried_on", testing.SmallModel)(2)
        self.model.double()
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, lr=0.01, fused=True)
            if fused
            else torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)
        )
        self.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=fused)
        self.told = self.scaler if fused else None
        data, held_out = testing.batch(36), testing.batch(24, seed=2)
        self.balancer = eq.Balancer(
            make(),
            self.model,
            dict(self.model.encoders.items()),
            self.model.head,
            self.optimizer,
            scores=eq.Probe() if "probe" in name else "auto",
            train_loader=DataLoader(TensorDataset(*data), 12),
            val_loader=DataLoader(TensorDataset(*held_out), 12),
            epochs=2,
            **settings,
        )
        self.loader = DataLoader(TensorDataset(*data), 12)

    def run(self, peculiar: Callable[[Training, tuple[Tensor, ...]], None]) -> Tensor:
        for _ in range(2):
            for number, batch in enumerate(self.balancer.batches(self.loader)):
                if number == 1:
                    peculiar(self, tuple(batch))
                else:
                    self.backward(*batch)
                    self.step()
            self.balancer.end_epoch()
        found = [p.detach().flatten() for p in self.model.parameters()]
        own = [p.detach().flatten() for p in self.balancer.own.parameters]
        return torch.cat([*found, *own])

    def loss(self, *batch: Tensor) -> Tensor:
        *inputs, target = batch
        return self.balancer.loss(self.model(*inputs), target)

    def backward(self, *batch: Tensor, factor: float | Tensor = 1.0) -> None:
        for _ in self.balancer.passes():
            self.part(*batch, factor=factor)

    def part(self, *batch: Tensor, factor: float | Tensor = 1.0) -> None:
        self.balancer.backward(self.scaler.scale(self.loss(*batch) * factor))

    def step(self) -> None:
        self.balancer.modulate(self.told)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


Peculiar = Callable[[Training, tuple[Tensor, ...]], None]


def plainly(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.backward(*batch)
    training.step()


def skipped(training: Training, batch: tuple[Tensor, ...]) -> None:
    """What is drawn at random in a forward is drawn; nothing else happens."""
    training.loss(*_other(batch))
    plainly(training, batch)


def _other(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Other samples of the same classes, on which the evidence is another."""
    *inputs, target = batch
    return (*[20 * x.flip(0) for x in inputs], target)


def dropped(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.backward(*_other(batch))
    training.optimizer.zero_grad()
    plainly(training, batch)


def dropped_in_place(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.backward(*_other(batch))
    training.optimizer.zero_grad(set_to_none=False)
    plainly(training, batch)
    training.optimizer.zero_grad()


def dropped_for_another_loss(training: Training, batch: tuple[Tensor, ...]) -> None:
    """Gradients are there again at the next look, but they are not the ones that were."""
    training.backward(*_other(batch))
    training.optimizer.zero_grad()
    *inputs, _ = batch
    (training.model(*inputs).sum() * 0).backward()
    plainly(training, batch)


def after_another_loss(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.loss(*_other(batch))
    *inputs, _ = batch
    (training.model(*inputs).sum() * 0).backward()
    plainly(training, batch)


def not_finite(training: Training, batch: tuple[Tensor, ...]) -> None:
    first, *others = batch
    wrong = first.clone()
    wrong[3, 1] = torch.nan
    training.backward(wrong, *others)
    assert not all(
        p.grad.isfinite().all() for p in training.model.parameters() if p.grad is not None
    )
    for parameter in training.model.parameters():
        parameter.grad = None
    plainly(training, batch)


def not_finite_skipped(training: Training, batch: tuple[Tensor, ...]) -> None:
    first, *others = batch
    wrong = first.clone()
    wrong[3, 1] = torch.nan
    training.loss(wrong, *others)
    plainly(training, batch)


def left_out(training: Training, batch: tuple[Tensor, ...]) -> None:
    """The user finds the update too large after `modulate`, and clears it."""
    training.backward(*_other(batch))
    training.balancer.modulate(training.told)
    training.optimizer.zero_grad()
    plainly(training, batch)


def overflowed(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.backward(*_other(batch), factor=torch.inf)
    training.step()
    plainly(training, batch)


def overflow_skipped(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.loss(*_other(batch))
    training.scaler.update(training.scaler.get_scale() / 2)  # the scaler backs off
    plainly(training, batch)


def rescaled(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.backward(*batch, factor=SCALE)
    for parameter in training.model.parameters():
        if parameter.grad is not None:
            parameter.grad /= SCALE
    training.step()


def rescaled_unseen(training: Training, batch: tuple[Tensor, ...]) -> None:
    """Past the count of changes of a tensor, as a gradient scaler does it."""
    training.backward(*batch, factor=SCALE)
    for parameter in training.model.parameters():
        if parameter.grad is not None:
            parameter.grad.data.div_(SCALE)
    training.step()


def replaced(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.backward(*batch)
    for parameter in training.model.parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad.clone()
    training.step()


def clipped(training: Training, batch: tuple[Tensor, ...]) -> None:
    training.backward(*batch)
    norm = nn.utils.clip_grad_norm_(training.model.parameters(), 0.01)
    training.factors = [*getattr(training, "factors", []), 0.01 / (norm + 1e-6)]  # type: ignore[attr-defined]
    training.step()


class Factored:
    """The loss multiplied by what another training clipped its gradients by."""

    def __init__(self, factors: list[Tensor]) -> None:
        self.factors = iter(factors)

    def __call__(self, training: Training, batch: tuple[Tensor, ...]) -> None:
        training.backward(*batch, factor=next(self.factors))
        training.step()


def in_uneven_parts(training: Training, batch: tuple[Tensor, ...]) -> None:
    for _ in training.balancer.passes():
        for part in (slice(0, 3), slice(3, 12)):
            some = tuple(tensor[part] for tensor in batch)
            training.part(*some, factor=len(some[0]) / 12)
    training.step()


CONDITIONS: dict[str, tuple[Peculiar, Peculiar]] = {
    "dropped": (dropped, skipped),
    "dropped, in place": (dropped_in_place, skipped),
    "dropped, then another loss": (dropped_for_another_loss, after_another_loss),
    "not finite": (not_finite, not_finite_skipped),
    "left out": (left_out, skipped),
    "rescaled": (rescaled, plainly),
    "rescaled, unseen": (rescaled_unseen, plainly),
    "replaced": (replaced, plainly),
}


def _assert_same(found: Tensor, truth: Tensor) -> None:
    assert truth.isfinite().all()
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", ALL)
def test_the_loop_of_a_user_is_what_it_says(name: str, condition: str) -> None:
    peculiar, plain = CONDITIONS[condition]
    _assert_same(Training(name).run(peculiar), Training(name).run(plain))


@pytest.mark.parametrize("name", ALL)
def test_gradients_clipped_before_modulate_are_those_of_a_smaller_loss(name: str) -> None:
    training = Training(name)
    found = training.run(clipped)
    _assert_same(found, Training(name).run(Factored(training.factors)))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
@pytest.mark.parametrize("name", ALL)
def test_an_overflow_that_a_fused_optimizer_steps_on_is_no_step(name: str) -> None:
    training, truth = Training(name, fused=True), Training(name, fused=True)
    _assert_same(training.run(overflowed), truth.run(overflow_skipped))
    assert training.balancer.steps == truth.balancer.steps


@pytest.mark.parametrize("name", ALL)
def test_uneven_micro_batches_are_the_one_large_batch(name: str) -> None:
    method = ALL[name]()
    if method.overrides("order"):
        pytest.skip("its batches are cut by its own loader")
    if method.capabilities.accumulation == "refused":
        with pytest.raises(eq.StepError, match="accumulate"):
            Training(name).run(in_uneven_parts)
        return
    if method.capabilities.accumulation == "per micro-batch":
        pytest.skip("declared to act on every micro-batch by itself")
    _assert_same(Training(name).run(in_uneven_parts), Training(name).run(plainly))
