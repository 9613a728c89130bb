"""What everything random in a training follows from: its seed, and the epoch."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import torch

from equimodal.noise import mix


def seed_all(seed: int) -> None:
    """Seed what a user's model and data may draw from: torch, Python and NumPy.

    A training calls it before it calls the user's function.
    """
    torch.manual_seed(seed % 2**63)
    random.seed(seed)
    with contextlib.suppress(ImportError):
        import numpy as np

        np.random.seed(seed % 2**32)  # noqa: NPY002 - what users' data sets draw from


def seed_epoch(seed: int, epoch: int, loader: Any) -> None:
    """Let all that an epoch draws, orders of samples too, follow from its number.

    A training calls it before each epoch, so that a resumed one has the same.

    Args:
        seed: of the training.
        epoch: from 0 on.
        loader: of training data.
    """
    seed_all(mix(seed, epoch))
    sampler: Any = getattr(loader, "sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    for holder in (loader, sampler):
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(mix(seed, epoch) % 2**63)
