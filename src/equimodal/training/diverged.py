"""A loss that is no longer a number: the run ends, and its folder says so."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import lightning as L

from equimodal.errors import DivergedError, SetupError
from equimodal.system.files import write_whole
from equimodal.tasks.carry import left_in
from equimodal.tasks.task import FAILED

DIVERGED = "the run has diverged: "
LOSSES = {"train/loss": "the training loss", "val/loss": "the validation loss"}


class Finite(L.Callback):
    """Ends a run after the first epoch in which a loss was NaN or infinite."""

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for name, what in LOSSES.items():
            value = float(trainer.callback_metrics.get(name, 0.0))
            if not math.isfinite(value):
                raise DivergedError(
                    f"{DIVERGED}{what} is {'NaN' if math.isnan(value) else 'infinite'} since epoch "
                    f"{trainer.current_epoch + 1}; try a lower learning rate (lr)"
                )


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Leave in the folder of a run that it has diverged, if it does."""
    (folder / FAILED).unlink(missing_ok=True)
    try:
        yield
    except DivergedError as error:
        said = {"kind": type(error).__name__, "message": str(error)}
        write_whole(folder / FAILED, json.dumps(said, indent=1) + "\n")
        raise


def reason(folder: Path) -> str:
    """Return why the run in a folder has diverged; "" if it has not."""
    said = left_in(folder)
    if said.get("kind") != DivergedError.__name__:
        return ""
    return str(said.get("message")).removeprefix(DIVERGED)


def refuse_diverged(folder: Path) -> None:
    """Refuse to begin anew where a run has diverged.

    Raises:
        SetupError: one has.
    """
    if why := reason(folder):
        raise SetupError(f"{folder} holds a run that has diverged ({why}): name another folder")
