"""Runs waiting to be done, shared by any number of workers through an Optuna study.

A run is a trial of the study. Workers take waiting trials one by one; the database sees to it that
no two take the same. SQLite serves the processes of one machine, PostgreSQL those of many.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from equimodal.compare.runs import Run

OPEN = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class RunQueue:
    """The runs of a comparison in a database.

    Args:
        url: of the database, as SQLAlchemy writes it.
        name: of the study.
    """

    def __init__(self, url: str, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=url, study_name=name, direction="maximize", load_if_exists=True
        )

    def add(self, runs: Sequence[Run]) -> None:
        """Add the runs that are not there yet, and those that a worker has left unfinished."""
        known = {}
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and _abandoned(trial):
                self.study.tell(trial.number, state=TrialState.FAIL)
            elif trial.state in OPEN:
                known[trial.user_attrs["name"]] = trial
        for run in runs:
            if run.name not in known:
                self.study.enqueue_trial({}, user_attrs={"name": run.name, "run": asdict(run)})

    def take(self) -> tuple[int, Run] | None:
        """Take a waiting run; None if there is none."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return None
        trial = self.study.ask()
        if "run" not in trial.user_attrs:  # another worker was faster, and this is a fresh trial
            self.study.tell(trial, state=TrialState.PRUNED)
            return None
        trial.set_user_attr("host", socket.gethostname())
        trial.set_user_attr("pid", os.getpid())
        return trial.number, Run(**trial.user_attrs["run"])

    def done(self, number: int, value: float) -> None:
        """Report that a run is finished, with its validation accuracy."""
        self.study.tell(number, value)

    def failed(self, number: int) -> None:
        """Report that a run has failed or was interrupted; it can be added again."""
        self.study.tell(number, state=TrialState.FAIL)

    def counts(self, runs: Sequence[Run]) -> dict[str, int]:
        """Return how many of the runs are complete, running or waiting."""
        names = {run.name for run in runs}
        states: dict[str, Any] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if trial.user_attrs.get("name") in names and trial.state in OPEN:
                states[trial.user_attrs["name"]] = trial.state
        return {
            state.name.lower(): sum(found == state for found in states.values()) for state in OPEN
        }


def _abandoned(trial: FrozenTrial) -> bool:
    """Whether the process that took a trial is one of this machine's and does not live any more."""
    if trial.user_attrs.get("host") != socket.gethostname():
        return False
    try:
        os.kill(trial.user_attrs["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
