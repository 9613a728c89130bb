"""Which candidates can run on a model at all, and how long a training takes: one step of each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from equimodal.choosing.build import build_of, folds_for
from equimodal.choosing.candidate import JOINT, Candidate, baselines, candidates, trials
from equimodal.choosing.training import Training
from equimodal.errors import MatchError, SetupError, StepError
from equimodal.system.files import write_whole

TIMED = 5  # steps of joint training, of which the duration of a training is estimated


def probe(spec: dict[str, Any], folder: Path) -> None:
    """Try one step of every candidate, and write which of them run.

    Args:
        spec: ``build``, ``path``, ``threads``, ``few`` (validation samples below which there are
            folds), and ``names`` of candidates, or None for all.
        folder: for ``result.json``.
    """
    torch.set_num_threads(spec["threads"])
    path = Path(spec["path"]) if spec["path"] else None
    built = build_of(spec["build"], 0, path)
    folds, pool = folds_for(spec["build"], path, spec["few"])
    modalities = list(built.encoders)
    named = candidates(built.epochs, spec["names"])
    lacking, running = {}, []
    for candidate in [*baselines(modalities), *named]:
        if reason := _lacking(candidate, spec, folder, modalities):
            lacking[candidate.label] = reason
        elif candidate in named:
            running.append(candidate)
    start = time.monotonic()
    if JOINT not in lacking:  # else that is what will be said
        _steps(next(iter(trials(baselines(modalities)[0], 1, modalities))), spec, folder, TIMED)
    seconds = (time.monotonic() - start) / TIMED
    said = {
        "modalities": modalities,
        "epochs": built.epochs,
        "seconds": seconds * _length(built.train) * built.epochs,
        "validation": _samples(built.val),
        "folds": folds,
        "pool": pool,
        "labels": [candidate.label for candidate in running],
        "lacking": lacking,
    }
    write_whole(folder / "result.json", json.dumps(said, indent=1) + "\n")


def _lacking(
    candidate: Candidate, spec: dict[str, Any], folder: Path, modalities: list[str]
) -> str | None:
    try:
        _steps(trials(candidate, 1, modalities)[0], spec, folder, 1)
    except (SetupError, MatchError, StepError) as error:
        return str(error)
    except Exception as error:  # whatever a model does to a method, the others are tried
        return f"{type(error).__name__}: {error}"
    return None


def _steps(trial: Any, spec: dict[str, Any], folder: Path, many: int) -> None:
    run = {**spec, "methods": trial.methods(), "rate": 1.0, "seed": 0, "late": False, "tried": True}
    trained = Training(run, folder)
    try:
        trained.take(many)
    finally:
        trained.balancer.detach()


def _length(loader: Any) -> int:
    try:
        return len(loader)
    except TypeError:
        return sum(1 for _ in loader)


def _samples(loader: Any) -> int:
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return 0
