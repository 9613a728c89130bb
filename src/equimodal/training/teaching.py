"""Teachers for a method that is taught: every modality alone, trained as the run will be."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning.pytorch.callbacks import Callback

from equimodal.balancer import Balancer
from equimodal.data import Samples, Source, Splits
from equimodal.errors import SetupError
from equimodal.integrations.lightning import Balance
from equimodal.methods import Ensemble, Teacher, teachers_of
from equimodal.nn import Multimodal
from equimodal.training.fit import fit
from equimodal.training.models import model_for
from equimodal.training.module import BalancedModule
from equimodal.training.settings import Settings

COMPARED = 8  # samples on which a teacher must say what the model that was trained says


def train_teachers(
    splits: Splits[Samples],
    settings: Settings | None = None,
    model: Multimodal | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    tensorboard: bool = True,
    callbacks: Sequence[Callback] = (),
    workers: int = 0,
    source: Source | None = None,
) -> dict[str, Teacher]:
    """Train every modality alone, and return the models of the best epoch as teachers.

    They are those of `eq.Ensemble` in one run, of which `eq.teachers_of` makes teachers. Give the
    settings and the model that the student will have::

        teachers = train_teachers(splits, settings, out=Path("run/teachers"), resume=True)
        fit(splits, eq.UMT(teachers), settings, out=Path("run"), resume=True)

    Args:
        splits: the data.
        settings: how to train.
        model: one that suits the data by default; it stays as it is, a copy is trained.
        out: folder for the run of the teachers; nothing is kept by default.
        resume: go on with the run in `out`; of one that is finished the teachers are read.
        progress: see `fit`, as all that follow.
        tensorboard: see `fit`.
        callbacks: see `fit`.
        workers: see `fit`.
        source: see `fit`.

    Raises:
        SetupError: see `fit`; the run in `out` is finished and its checkpoint is missing; or the
            encoders and a classifier are not all that there is between input and logits.
        KeyboardInterrupt: it was interrupted; `resume` goes on from the last whole epoch.
    """
    settings = (settings or Settings()).suited(splits.card.name)
    model = model_for(splits, seed=settings.seed) if model is None else copy.deepcopy(model)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory())) if out is None else out
        fit(
            splits,
            Ensemble(),
            settings,
            model,
            out=folder,
            resume=resume,
            progress=progress,
            tensorboard=tensorboard,
            callbacks=callbacks,
            workers=workers,
            source=source,
        )
        path = folder / "checkpoints" / "best.ckpt"
        if not path.exists():
            raise SetupError(
                f"{path} is missing, which holds the teachers: remove {folder} to train them anew"
            )
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    module = BalancedModule(model, settings, len(splits.classes), splits.train.transform).cpu()
    module.load_state_dict(checkpoint["state_dict"])
    balancer = Balancer(
        Ensemble(),
        model,
        dict(model.encoders.items()),
        model.head,
        settings.make_optimizer(model),
        forward=module.run,
        seed=settings.seed,
    )
    with balancer:
        balancer.load_state_dict(checkpoint["callbacks"][Balance.__qualname__])
        return teachers_of(balancer, next(iter(splits.val.loader(COMPARED))))
