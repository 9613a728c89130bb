"""Runs waiting to be done, shared by any number of workers through an Optuna study.

A run is a trial of the study. Workers take waiting trials one by one; the database sees to it that
no two take the same. SQLite serves the processes of one machine, PostgreSQL those of many.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event  # comes with Optuna

from equimodal.compare.runs import Run

BEAT = 20.0  # seconds between signs of life of a worker
SILENCE = 120.0  # seconds without one after which a worker of another machine counts as dead


class RunQueue:
    """The runs of a comparison in a database.

    Args:
        url: of the database, as SQLAlchemy writes it.
        name: of the study.
    """

    def __init__(self, url: str, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = _storage(url)
        self.study = optuna.create_study(
            storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
        )

    def add(self, runs: Sequence[Run]) -> None:
        """Add runs that are to be done, but for those that wait or are being done already."""
        known = set()
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and _abandoned(trial):
                self.failed(trial.number)
            elif trial.state in (TrialState.WAITING, TrialState.RUNNING):
                known.add(trial.user_attrs["name"])
        for run in runs:
            if run.name not in known:
                self.study.enqueue_trial({}, user_attrs={"name": run.name, "run": asdict(run)})

    def take(self, names: Collection[str]) -> tuple[int, Run] | None:
        """Take the first waiting run of these names; None if there is none.

        `Study.ask` would take any waiting run, also one that only an earlier call asked for.
        """
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if trial.user_attrs["name"] not in names:
                continue
            try:
                # Whoever dies right after taking a run shall be known.
                self._note(trial, f"reached by {os.getpid()}")
                ours = self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:  # another worker took it, and was quick
                continue
            if ours:
                self._note(trial, "taken by")
                return trial.number, Run(**trial.user_attrs["run"])
        return None

    def beat(self, number: int) -> None:
        """Give a sign of life of whoever does a run."""
        self._note(self.study.get_trials(deepcopy=False)[number], "taken by")

    def _note(self, trial: FrozenTrial, name: str) -> None:
        self.storage.set_trial_user_attr(trial._trial_id, name, _self())

    def done(self, number: int, value: float) -> None:
        """Report that a run is finished, with its validation accuracy."""
        self.study.tell(number, value, skip_if_finished=True)

    def failed(self, number: int) -> None:
        """Report that a run has failed or was interrupted; it can be added again."""
        self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Open a database in which reading and writing are one, also where that is SQLite.

    Optuna reads that a trial is waiting, and then writes that it is running. PostgreSQL locks what
    was read; SQLite does not, so that two workers could take the same run, unless the transaction
    begins with the lock.
    """
    sqlite = url.startswith("sqlite")
    patience = {"connect_args": {"timeout": 60}} if sqlite else {}
    storage = optuna.storages.RDBStorage(url, engine_kwargs=patience)
    if sqlite:

        def by_us(connection: Any, record: object) -> None:
            connection.isolation_level = None  # Python would begin later, without the lock

        def locked(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        storage.engine.dispose()  # what was opened before knows nothing of this
        event.listen(storage.engine, "connect", by_us)
        event.listen(storage.engine, "begin", locked)
    return storage


def _self() -> dict[str, Any]:
    """Say who this process is, and that it lives."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": _started(pid),
        "seen": time.time(),
    }


def _abandoned(trial: FrozenTrial) -> bool:
    """Whether the process that took a trial does not live any more."""
    attributes = trial.user_attrs
    reached = [who for name, who in attributes.items() if name.startswith("reached by")]
    takers = [attributes["taken by"]] if "taken by" in attributes else reached
    return all(_gone(who) for who in takers)


def _gone(who: dict[str, Any]) -> bool:
    if who["host"] == socket.gethostname():
        return bool(_started(who["pid"]) != who["started"])
    return time.time() - float(who["seen"]) > SILENCE


def _started(pid: int) -> str | None:
    """When a process of this machine was started, in its own words; None if there is none.

    Numbers of processes are used again, after a restart of a container even the same ones.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        # The 22nd field; the second one, in parentheses, may hold blanks itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "unknown"
