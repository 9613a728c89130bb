"""Which candidates can run on a model at all, and how long a training takes: one step of each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from equimodal.choosing.anew import Anew
from equimodal.choosing.build import build_of, folds_for
from equimodal.choosing.candidate import JOINT, Trial, baselines, candidates, trials
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
    start = time.monotonic()
    make = Anew(build_of(spec["build"], 0, path))
    beginning, built = time.monotonic() - start, make.built
    folds, pool = folds_for(spec["build"], path, spec["few"], built.splits)
    modalities = list(built.encoders)
    named = candidates(built.epochs, spec["names"])
    lacking, running = {}, []
    for candidate in [*baselines(modalities), *named]:
        if reason := _lacking(trials(candidate, 1, modalities)[0], spec, folder, make):
            lacking[candidate.label] = reason
        elif candidate in named:
            running.append(candidate)
    seconds, length = 0.0, _length(built.train)
    if JOINT not in lacking:  # else that is what will be said
        joint = trials(baselines(modalities)[0], 1, modalities)[0]
        many = max(1, min(TIMED, length))
        seconds = _steps(joint, spec, folder, make, many) / many
    said = {
        "modalities": modalities,
        "epochs": built.epochs,
        "given": built.given,
        "seconds": beginning + seconds * length * built.epochs,
        "validation": _samples(built.val),
        "folds": folds,
        "pool": pool,
        "labels": [candidate.label for candidate in running],
        "lacking": lacking,
    }
    write_whole(folder / "result.json", json.dumps(said, indent=1) + "\n")


def _lacking(trial: Trial, spec: dict[str, Any], folder: Path, make: Anew) -> str | None:
    try:
        _steps(trial, spec, folder, make, 0)
    except (SetupError, MatchError, StepError) as error:
        return str(error)
    except Exception as error:  # whatever a model does to a method, the others are tried
        return f"{type(error).__name__}: {error}"
    return None


def _steps(trial: Trial, spec: dict[str, Any], folder: Path, make: Anew, many: int) -> float:
    """Take a step, in which a method looks at the model, and return how long so many more take."""
    run = {**spec, "methods": trial.methods(), "rate": 1.0, "seed": 0, "late": False, "tried": True}
    trained = Training(run, folder, make)
    try:
        trained.take(1)
        start = time.monotonic()
        if many:
            trained.take(many)
        return time.monotonic() - start
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
