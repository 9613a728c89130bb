"""A run of a comparison as a task."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from equimodal import data
from equimodal.compare.runs import RATE, Run
from equimodal.compare.subject import Subject, usual
from equimodal.compare.teaching import folder_of_seed, teachers_of_seed
from equimodal.methods.supplied import TEACHERS, takes_teachers
from equimodal.tasks import Task, note
from equimodal.training import Encoder, Settings, fit


class Noting(L.Callback):
    """Notes in a folder how many epochs are done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        note(self.folder, trainer.current_epoch + 1)


def task_of(
    run: Run,
    source: data.Source,
    settings: Settings,
    folder: Path,
    encoder: Encoder = "small",
    threads: int = 1,
    limit: float | None = None,
    subject: Subject | None = None,
    readers: int = 0,
) -> Task:
    """Return a run as a task.

    Args:
        run: which.
        source: of the data.
        settings: how to train; the seed is that of the run.
        folder: of the comparison.
        encoder: what encodes a modality.
        threads: that the run may use.
        limit: seconds that it may take.
        subject: instead of the data as they are and a model with this encoder.
        readers: processes that read prepared clips for the run; they change no number.
    """
    spec = {
        "run": asdict(run),
        "source": noted(source),
        "settings": asdict(replace(settings, seed=run.seed, lr=run.options.get(RATE, settings.lr))),
        "teachers": str(folder.absolute() / TEACHERS),
        "subject": (subject or usual(encoder)).described(),
        "threads": threads,
        "readers": readers,
    }
    own = folder.absolute() / "runs" / run.name
    return Task(run.name, f"{__name__}:train_run", spec, own, limit=limit)


def noted(source: data.Source) -> dict[str, Any]:
    """Return a source as JSON values; a path such that it is found from any folder."""
    path = Path(source.name)
    found = source.name not in data.available() and path.exists()
    return {"name": str(path.resolve()) if found else source.name, "options": dict(source.options)}


def train_run(spec: dict[str, Any], folder: Path) -> None:
    """Train and evaluate the run of a specification; it goes on from its last epoch."""
    torch.set_num_threads(spec["threads"])
    run, settings = Run(**spec["run"]), Settings(**spec["settings"])
    subject = Subject(**spec["subject"])
    splits = subject.load(data.Source(**spec["source"]))
    model = subject.make(splits, run.seed)
    supplied: dict[str, Any] = {}
    taught = None
    if any(map(takes_teachers, run.kinds)):
        of_all = Path(spec["teachers"])
        supplied[TEACHERS] = teachers_of_seed(splits, settings, model, of_all)
        taught = folder_of_seed(of_all, run.seed)
    fit(
        splits,
        run.make(**supplied),
        settings,
        model,
        out=folder,
        resume=True,
        tensorboard=False,
        callbacks=[Noting(folder)],
        workers=spec["readers"],
        taught=taught,
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
