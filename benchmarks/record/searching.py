"""One row on one data set: its trials, and the best of them on fresh seeds."""

from __future__ import annotations

import warnings

import torch
from benchmarks.record import table
from benchmarks.record.design import Design, Trial
from benchmarks.record.sources import parts
from benchmarks.record.table import Trained
from benchmarks.record.training import trained

from equimodal.choosing.candidate import Candidate
from equimodal.errors import DivergedError, MatchError, SetupError, StepError


def searched(plan: Design, name: str, row: Candidate) -> list[Trained]:
    """Search a row, and train what is best on fresh seeds."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    searched = [_one(plan, name, trial, 0) for trial in plan.trials(row, parts(name)[0].modalities)]
    chosen = table.best(searched)
    if chosen.failed:
        return searched[:1]
    return searched + [_one(plan, name, chosen.trial, seed) for seed in range(1, plan.seeds + 1)]


def _one(plan: Design, name: str, trial: Trial, seed: int) -> Trained:
    try:
        return Trained(trial, seed, *trained(plan, name, trial, seed))
    except (SetupError, MatchError, StepError, DivergedError) as error:
        return Trained(trial, seed, 0.0, 0.0, str(error).split("\n")[0])
