"""What a run ends with, as a file that is there whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """The outcome of one training run.

    Attributes:
        data: name of the data set.
        fingerprint: of its splits and classes.
        method: the method and its settings, as they were written.
        settings: how it was trained.
        best_epoch: chosen by validation accuracy, counted from 0.
        val: metrics on the validation split at that epoch.
        test: metrics on the test split, evaluated once, at that epoch.
        history: what was logged in every epoch.
        seconds: duration of the run.
        versions: of the software.
        right: for each test sample in order, "1" where the answer was right and "0" where not; ""
            in results of earlier versions.
        operations: floating-point operations of the training, as `equimodal.training.cost` counts
            them, with those of teachers that were trained for it; None where not all are known.
    """

    data: str
    fingerprint: str
    method: str
    settings: dict[str, Any]
    best_epoch: int
    val: dict[str, float]
    test: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    versions: dict[str, str]
    right: str = ""
    operations: float | None = None

    def save(self, path: Path) -> None:
        """Write the result, so that a reader sees all of it or nothing."""
        partial = path.with_suffix(f".partial-{os.getpid()}")
        try:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read a result."""
        return cls(**json.loads(path.read_text()))
