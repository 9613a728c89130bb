"""The teachers of a seed, which all runs of a comparison that need them share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from equimodal.data import Splits
from equimodal.methods import Teacher
from equimodal.nn import Multimodal
from equimodal.training import Settings, train_teachers


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
    own = folder / f"seed-{settings.seed}"
    own.mkdir(parents=True, exist_ok=True)
    with _locked(own / "lock"):
        made = train_teachers(splits, settings, model, out=own, resume=True, tensorboard=False)
        (own / "checkpoints" / "last.ckpt").unlink(missing_ok=True)  # the best one is enough
    return made


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes out; the lock ends with the process that holds it, however it ends."""
    import fcntl  # not on Windows, where all that needs no teachers runs

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
