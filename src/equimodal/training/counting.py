"""Counts what a run by Lightning costs, around each step and around what ends an epoch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import lightning as L

from equimodal.integrations.lightning import Balance
from equimodal.training.cost import Spent
from equimodal.training.result import Result


class Counting(L.Callback):
    """Counts the operations of a run; part of the checkpoint.

    Attributes:
        spent: what was counted.
    """

    def __init__(self) -> None:
        self.spent = Spent()
        self._open = contextlib.ExitStack()

    def around(self, balance: Balance, *others: L.Callback) -> list[L.Callback]:
        """Return callbacks in their order: between those of this one the balancer ends epochs."""
        return [self, balance, _End(self), *others]

    def operations(self, epochs: int, taught: Path | None = None) -> float | None:
        """Return what a run took; None if some of it was trained before anything was counted.

        Args:
            epochs: of the run.
            taught: folder of the run of its teachers.
        """
        before = 0.0 if taught is None else Result.load(taught / "result.json").operations
        if before is None or self.spent.epochs < epochs:
            return None
        return before + self.spent.operations

    def end_epoch(self) -> None:
        """Called after the balancer has ended the epoch."""
        self._open.close()
        self.spent.end_epoch()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._open.enter_context(self.spent.step())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        self._open.close()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open.enter_context(self.spent.between())

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._open.close()

    def state_dict(self) -> dict[str, Any]:
        return self.spent.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.spent.load_state_dict(state)


class _End(L.Callback):
    def __init__(self, counting: Counting) -> None:
        self.counting = counting

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.counting.end_epoch()
