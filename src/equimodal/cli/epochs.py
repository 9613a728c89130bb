"""Lines in a log about the epochs of a run."""

from __future__ import annotations

import lightning as L

from equimodal.cli.progress import Lines


class EpochLines(L.Callback):
    """Says after an epoch how far the run is and how well it does.

    Args:
        lines: where to say it.
        who: is trained, where there are several.
    """

    def __init__(self, lines: Lines, who: str = "") -> None:
        self.lines = lines
        self.who = f"{who}, " if who else ""

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 1
        accuracy = 100 * float(trainer.callback_metrics["val/accuracy"])
        text = f"{self.who}epoch {done} of {total}, validation accuracy {accuracy:.1f}%"
        self.lines(done, total, text)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.lines.finish()
