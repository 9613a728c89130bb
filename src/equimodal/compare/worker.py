"""A process that takes runs from the queue until there are none."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import lightning as L
import torch

from equimodal import data
from equimodal.compare.queue import RunQueue
from equimodal.compare.runs import Run
from equimodal.training import Settings, fit


@dataclass(frozen=True)
class Task:
    """What all runs of a comparison have in common.

    Attributes:
        data: name of the data set.
        modalities: some of its modalities, or None for all.
        settings: how to train; the seed is that of the run.
        folder: where results go, one folder per run.
        database: of the queue.
        threads: that one run may use.
    """

    data: str
    modalities: tuple[str, ...] | None
    settings: Settings
    folder: Path
    database: str
    threads: int


class Reporter(L.Callback):
    """Tells the parent process how far a run is."""

    def __init__(self, name: str, messages: Queue[Any]) -> None:
        self.name = name
        self.messages = messages

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.messages.put(("epoch", self.name, trainer.current_epoch + 1))


def work(task: Task, messages: Queue[Any]) -> None:
    """Do runs until none is waiting. A run that fails is reported and left to the next call."""
    torch.set_num_threads(task.threads)
    splits = data.load(task.data, modalities=task.modalities)
    queue = RunQueue(task.database, task.data)
    parent = os.getppid()
    while os.getppid() == parent and (taken := queue.take()) is not None:
        number, run = taken
        try:
            value = execute(run, splits, task, [Reporter(run.name, messages)])
        except Exception as error:  # whatever it is, the other runs go on
            queue.failed(number)
            messages.put(("failed", run.name, f"{type(error).__name__}: {error}"))
        else:
            queue.done(number, value)
            messages.put(("done", run.name, value))


def execute(run: Run, splits: data.Splits, task: Task, callbacks: list[L.Callback]) -> float:
    """Train and evaluate one run, and return its validation accuracy."""
    folder = task.folder / run.name
    result = fit(
        splits,
        run.make(),
        replace(task.settings, seed=run.seed),
        out=folder,
        resume=True,
        tensorboard=False,
        callbacks=callbacks,
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result.val["accuracy"]
