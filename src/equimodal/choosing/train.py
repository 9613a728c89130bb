"""Trainings and their test, as tasks."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from equimodal.choosing.training import BEST, LAST, Training, or_worst
from equimodal.methods.supplied import TEACHERS
from equimodal.system.files import write_whole


def train(spec: dict[str, Any], folder: Path) -> None:
    """Train by a specification, and write what validation says of the best epoch.

    Args:
        spec: ``build`` (see `build_of`), ``methods`` (names and options), ``rate``, ``seed``,
            ``late``, ``threads``, ``path`` (of the user's modules), ``keep`` (the best model) and
            ``folds``.
        folder: for checkpoints and ``result.json``.
    """
    torch.set_num_threads(spec["threads"])
    start = time.monotonic()
    trained = Training(spec, folder)
    try:
        history = trained.run()
        best = max(range(len(history)), key=lambda epoch: (or_worst(history[epoch]), -epoch))
        found = trained.judged("val")
        said = {
            "methods": spec["methods"],
            "rate": spec["rate"],
            "seed": spec["seed"],
            "val": found["score"],
            "samples": found["samples"],
            "weights": found["weights"],
            "best_epoch": best,
            "history": history,
            "operations": trained.operations,
            "seconds": time.monotonic() - start,
        }
    finally:
        trained.balancer.detach()
    (folder / LAST).unlink(missing_ok=True)
    if not spec.get("keep"):
        shutil.rmtree(folder / TEACHERS, ignore_errors=True)
        (folder / BEST).unlink(missing_ok=True)
    write_whole(folder / "result.json", json.dumps(said) + "\n")


def evaluate(spec: dict[str, Any], folder: Path) -> None:
    """Open the test data once for a model that `train` has kept."""
    torch.set_num_threads(spec["threads"])
    trained = Training(spec, folder)
    try:
        write_whole(folder / "test.json", json.dumps(trained.judged("test")) + "\n")
    finally:
        trained.balancer.detach()
