"""What every epoch of a run looked like, kept through interruptions."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor


class History(L.Callback):
    """Collects what was logged in every epoch; part of the checkpoint.

    Attributes:
        epochs: for each epoch the logged values by name.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        values: dict[str, Tensor] = trainer.callback_metrics
        self.epochs.append({name: float(value) for name, value in sorted(values.items())})

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = list(state["epochs"])
