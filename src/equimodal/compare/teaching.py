"""The teachers of a seed, which all runs of a comparison that need them share."""

from __future__ import annotations

import math
from pathlib import Path

from equimodal.data import Splits
from equimodal.methods import Teacher
from equimodal.nn import Multimodal
from equimodal.tasks import locked
from equimodal.training import Settings, train_teachers


def folder_of_seed(folder: Path, seed: int) -> Path:
    """Return where the teachers of a seed are, in the folder of the teachers of all seeds."""
    return folder / f"seed-{seed}"


def teachers_of_seed(
    splits: Splits, settings: Settings, model: Multimodal, folder: Path
) -> dict[str, Teacher]:
    """Return the teachers of a seed; whoever needs them first trains them.

    Others wait meanwhile. If that process is killed, the next one goes on from its last epoch.

    Args:
        splits: the data.
        settings: how to train, with the seed.
        model: as it is before training.
        folder: of the teachers of all seeds.
    """
    own = folder_of_seed(folder, settings.seed)
    own.mkdir(parents=True, exist_ok=True)
    with locked(own / "lock", "", patience=math.inf):
        made = train_teachers(splits, settings, model, out=own, resume=True, tensorboard=False)
        (own / "checkpoints" / "last.ckpt").unlink(missing_ok=True)  # the best one is enough
    return made
