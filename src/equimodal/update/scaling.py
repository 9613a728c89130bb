"""Loss scaling: unscaling gradients once, and noticing a scaler that nobody has told of."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch

from equimodal.errors import StepError
from equimodal.update.optimizers import Optimizer
from equimodal.update.wrappers import outermost


def unscale(scaler: torch.amp.GradScaler, optimizers: Iterable[Optimizer]) -> None:
    """Unscale the gradients of optimizers, unless the user has done so."""
    for optimizer in optimizers:
        try:
            scaler.unscale_(outermost(optimizer))  # what the user gives scaler.step
        except RuntimeError as error:
            if "already been called" not in str(error):
                raise


def refuse_untold() -> None:
    """Refuse a step by a scaler that `modulate` was not given; called from within the step.

    The user may have unscaled the gradients, but not those that only methods know of.

    Raises:
        StepError: a scaler is stepping an optimizer.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is torch.amp.GradScaler.step.__code__:
            if frame.f_locals["self"].is_enabled():
                raise StepError(
                    "this step is taken by a GradScaler that balancer.modulate was not given, and "
                    "the gradients of methods' own modules and loss terms are scaled still: write "
                    "balancer.modulate(scaler), also where you call scaler.unscale_ yourself"
                )
            return
