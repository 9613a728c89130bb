"""A process that takes runs from the queue until there are none."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import lightning as L
import torch

from equimodal import data
from equimodal.compare.queue import BEAT, RunQueue
from equimodal.compare.runs import Run
from equimodal.compare.teaching import teachers_of_seed
from equimodal.methods.registry import find
from equimodal.methods.supplied import TEACHERS, takes_teachers
from equimodal.training import Encoder, Settings, fit, model_for


@dataclass(frozen=True)
class Task:
    """What all runs of a comparison have in common.

    Attributes:
        study: name of the study in the database.
        source: of the data.
        settings: how to train; the seed is that of the run.
        folder: of the comparison; results go to `runs` in it, one folder per run.
        database: of the queue.
        names: of the runs to take.
        encoder: what encodes a modality.
        threads: that one run may use.
    """

    study: str
    source: data.Source
    settings: Settings
    folder: Path
    database: str
    names: frozenset[str]
    encoder: Encoder
    threads: int


@dataclass(frozen=True)
class Message:
    """What a worker tells its parent.

    Attributes:
        kind: "taken", "epoch", "done" or "failed".
        run: its name.
        value: the number in the queue of a run that was taken, or how many epochs are done.
        reason: why a run has failed.
    """

    kind: str
    run: str
    value: int = 0
    reason: str = ""


class Reporter(L.Callback):
    """Tells the parent process how far a run is."""

    def __init__(self, name: str, parent: Connection) -> None:
        self.name = name
        self.parent = parent

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.parent.send(Message("epoch", self.name, trainer.current_epoch + 1))


class Stop:
    """Ends the process when its parent asks it to.

    Lightning hears the request only between the batches of training, and forgets it otherwise; but
    it calls the handler that it finds.

    Attributes:
        asked: whether the parent has; should the exception have been lost in somebody's code.
    """

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._heard)

    def _heard(self, number: int, frame: object) -> None:
        self.asked = True
        sys.exit(128 + number)


def work(task: Task, parent: Connection) -> None:
    """Do runs until none is waiting. A run that fails is reported and left to the next call."""
    torch.set_num_threads(task.threads)
    stop = Stop()
    queue = RunQueue(task.database, task.study)
    current: list[int] = []
    threading.Thread(target=_live_with_parent, args=(queue, current), daemon=True).start()
    splits = task.source.load()
    while not stop.asked and (taken := queue.take(task.names)) is not None:
        number, run = taken
        current[:] = [number]
        parent.send(Message("taken", run.name, number))
        try:
            value = execute(run, splits, task, [Reporter(run.name, parent)])
        except Exception as error:  # whatever it is, the other runs go on
            queue.failed(number)
            parent.send(Message("failed", run.name, reason=f"{type(error).__name__}: {error}"))
        else:
            queue.done(number, value)
            parent.send(Message("done", run.name))
        current.clear()


def _live_with_parent(queue: RunQueue, current: list[int]) -> None:
    """Give signs of life, and end with the parent, however that has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while not wait([parent.sentinel], timeout=BEAT):
        # A busy database, or a run that has just ended: the next beat will do.
        with contextlib.suppress(Exception):
            for number in current:
                queue.beat(number)
    os._exit(1)


def execute(run: Run, splits: data.Splits, task: Task, callbacks: list[L.Callback]) -> float:
    """Train and evaluate one run, and return its validation accuracy."""
    folder = task.folder / "runs" / run.name
    settings = replace(task.settings, seed=run.seed)
    model = model_for(splits, seed=run.seed, encoder=task.encoder)
    supplied = {}
    if takes_teachers(find(run.method)):
        supplied[TEACHERS] = teachers_of_seed(splits, settings, model, task.folder / TEACHERS)
    result = fit(
        splits,
        run.make(**supplied),
        settings,
        model,
        out=folder,
        resume=True,
        tensorboard=False,
        callbacks=callbacks,
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result.val["accuracy"]
