"""How Lightning's trainer is made to behave: precision, hints, interruptions, early ends."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from equimodal.training.settings import Settings


def precision(settings: Settings) -> dict[str, Any]:
    """Return the arguments of the trainer that stand for a precision."""
    if settings.precision == "16" and not torch.cuda.is_available():
        # Lightning takes bfloat16 on a CPU, which by now can do both.
        scaler = torch.amp.GradScaler("cpu")
        return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    return {
        "precision": {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[settings.precision]
    }


class Until(L.Callback):
    """Ends training after an epoch; schedules follow the length that was planned.

    Args:
        epoch: the last, counted from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.epoch:
            trainer.should_stop = True


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let an interruption be one: Lightning exits with status 1, and ignores all that follow."""
    heard = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, heard)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's hints out of the way: they are about loaders of large data sets."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
