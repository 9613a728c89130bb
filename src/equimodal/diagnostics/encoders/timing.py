"""How long a forward takes, and a training step, which a copy of the model takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from equimodal.diagnostics.subject import Subject
from equimodal.epochs.passes import run_forward

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
UNTIMED = 2  # runs before those that are timed: the first ones allocate memory


def momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return SGD with momentum: what a step costs does not depend on its length."""
    return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)


def typical(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median of the seconds that something takes, with what the device has yet to do."""
    return statistics.median(_timed(run, device) for _ in range(repeats))


def training_step(
    subject: Subject, batch: Any, optimizer: MakeOptimizer, device: torch.device, repeats: int
) -> tuple[float | None, str]:
    """Return the seconds of a training step; or None, and why it cannot be taken.

    What fails in a user's code then was not asked for: it must not cost them the other numbers.

    Args:
        subject: its model is copied, and should be in evaluation mode, in case that its `forward`
            runs the very model, whatever it is given.
        batch: to train on.
        optimizer: of the copy's parameters that are trained.
        device: of the model.
        repeats: steps to time.
    """
    try:
        step = _step_of(subject, batch, optimizer)
        for _ in range(UNTIMED):
            step()
        return typical(step, device, repeats), ""
    except _NoStepError as error:
        return None, str(error)
    except Exception as error:
        lines = str(error).splitlines()
        return None, f"{type(error).__name__}: {lines[0] if lines else ''}"


class _NoStepError(Exception):
    pass


def _step_of(subject: Subject, batch: Any, make: MakeOptimizer) -> Callable[[], None]:
    model = subject.attached.copy_model().train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise _NoStepError("no parameter is trained")
    optimizer = make(trained)

    def step() -> None:
        with torch.enable_grad():
            logits, target, _ = run_forward(subject.forward, model, batch)
            loss = subject.criterion.total(logits, target)
            # To no others: a forward that runs the very model must not leave gradients there.
            torch.autograd.backward(loss, inputs=trained)
            if all(parameter.grad is None for parameter in trained):
                raise _NoStepError(
                    "no trained parameter of the model that forward= is given has a gradient"
                )
            optimizer.step()
            optimizer.zero_grad()

    return step


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    synchronise = getattr(torch, device.type).synchronize
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start
