"""Teachers for the small models of the tests: the same with every call."""

from __future__ import annotations

import torch
from torch import nn

from equimodal.methods.teacher import Teacher
from equimodal.testing import CLASSES, NAMES


def teachers(seed: int = 7, classes: int = CLASSES) -> dict[str, nn.Module]:
    """Return a teacher for every modality that `SmallModel` may have, with its encoder's shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            name: Teacher(
                nn.Sequential(nn.Linear(4 + index, 7), nn.Tanh(), nn.Linear(7, 8), nn.Tanh()),
                nn.Linear(8, classes),
            ).double()
            for index, name in enumerate(NAMES)
        }
