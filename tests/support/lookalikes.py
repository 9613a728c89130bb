"""Small data sets that look like those of the articles, and an engine that stays in the process."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from equimodal.tasks import Ended, Task
from equimodal.tasks.task import perform
from support.prepared import Made, clips, prepared

PROTOCOLS = {
    "crema-d": "speakers: test: 0.1 of the clips",
    "kinetics-sounds": "31 classes (31); train, val and test as annotated",
    "vggsound": "train and test as listed",
    "ave": "train, val and test as listed",
}


def lookalikes(folder: Path, **protocols: str) -> Path:
    """Write every data set of the articles, tiny, under its name."""
    for number, name in enumerate(PROTOCOLS):
        made(folder / name, name, protocols.get(name, PROTOCOLS[name]), 10 * number)
    features(folder / "ave-features")
    return folder


def made(folder: Path, name: str, protocol: str, seed: int = 0) -> Path:
    """Write a prepared folder of six clips to train on and of three in the other splits."""
    splits: dict[str, list[Made]] = {
        split: clips(count, split, seed + place)
        for place, (split, count) in enumerate({"train": 6, "val": 3, "test": 3}.items())
    }
    return prepared(folder, splits, name=name, protocol=protocol)


def features(folder: Path) -> Path:
    """Write AVE's features: 4 seconds, maps of 2 x 2, 4 classes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays = {
        "audio": rng.normal(size=(12, 4, 6)).astype(np.float32),
        "visual": rng.normal(size=(12, 4, 2, 2, 8)).astype(np.float32),
        "labels": np.eye(4, dtype=np.float32)[rng.integers(0, 4, (12, 4))],
        "train": np.arange(6),
        "val": np.arange(6, 9),
        "test": np.arange(9, 12),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


class Here:
    """Runs tasks in this process, one after the other: an engine for tests of what is run."""

    def __init__(self) -> None:
        self.waiting: deque[Task] = deque()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        self.waiting.clear()

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def running(self) -> list[Task]:
        return []

    def ended(self, timeout: float) -> list[Ended]:
        task = self.waiting.popleft()
        return [Ended(task, perform(task))]
