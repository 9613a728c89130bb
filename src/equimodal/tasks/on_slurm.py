"""Tasks as jobs of SLURM, by submitit."""

from __future__ import annotations

import math
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from typing_extensions import Self

from equimodal.system.extras import require
from equimodal.system.files import write_whole
from equimodal.tasks.engine import Ended
from equimodal.tasks.task import Task, perform

JOB = "job.txt"  # the number of a task's job, by which it is found again
ALIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED")
LOST = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED")  # states of which a task is not to blame
UNSEEN = 15.0  # seconds until what a job has written on another machine is seen on this one
SPARE = 5  # minutes beyond the limit of a task, to begin and to write


class OnSlurm:
    """Runs tasks as jobs on a cluster whose nodes share the folders of the tasks.

    Jobs go on when this process is killed; whoever asks for the same tasks finds them again.

    Args:
        folder: for scripts and logs of jobs.
        cpus: cores for each task.
        gpus: for each task.
        cluster: "slurm"; or "local", where submitit starts jobs as processes of this machine.
        parameters: for `submitit`, such as ``slurm_partition``.

    Raises:
        ImportError: submitit is missing.
    """

    def __init__(
        self,
        folder: Path,
        cpus: int = 1,
        gpus: int = 0,
        cluster: str = "slurm",
        **parameters: Any,
    ) -> None:
        require("slurm", "submitit")
        self.submitit: Any = import_module("submitit")
        self.folder = folder.resolve()
        self.cluster = cluster
        self.cpus, self.gpus = cpus, gpus
        self.parameters = parameters
        self.jobs: dict[Any, Task] = {}
        self.silent: dict[Any, float] = {}  # since when jobs have ended, and nothing is seen of it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for job in self.jobs:
            job.cancel()
        self.jobs.clear()

    def submit(self, task: Task) -> None:
        job = self._found(task)
        if job is None:
            executor = self.submitit.AutoExecutor(self.folder, cluster=self.cluster)
            minutes = math.ceil((task.limit or 24 * 3600) / 60) + SPARE
            shared = {"timeout_min": minutes, "cpus_per_task": self.cpus, "name": "equimodal"}
            executor.update_parameters(**shared, gpus_per_node=self.gpus, **self.parameters)
            job = executor.submit(perform, task)
            task.folder.mkdir(parents=True, exist_ok=True)
            write_whole(task.folder / JOB, f"{job.job_id}\n")
        self.jobs[job] = task

    def running(self) -> list[Task]:
        return list(self.jobs.values())

    def ended(self, timeout: float) -> list[Ended]:
        until = time.monotonic() + timeout
        while not (done := [job for job in self.jobs if self._over(job)]):
            if time.monotonic() > until:
                return []
            time.sleep(0.05)
        return [self._ended(job, self.jobs.pop(job)) for job in done]

    def _over(self, job: Any) -> bool:
        """Whether a job has ended, and has left a result or had time to."""
        if not job.done():
            return False
        since = self.silent.setdefault(job, time.monotonic())
        late = UNSEEN if self.cluster == "slurm" else 0.0
        return job.paths.result_pickle.exists() or time.monotonic() - since >= late

    def _ended(self, job: Any, task: Task) -> Ended:
        (task.folder / JOB).unlink(missing_ok=True)
        del self.silent[job]
        if not job.paths.result_pickle.exists():  # for which submitit would wait
            state = str(job.state)
            how = f"ended without a result ({state.lower()})"
            return Ended(task, None, how, machine=state in LOST)
        try:
            return Ended(task, job.result())
        except Exception as error:  # submitit's own are several
            return Ended(task, None, f"ended: {str(error).strip().splitlines()[0]}")

    def _found(self, task: Task) -> Any:
        """Return the job that an earlier process has left for a task, if it lives."""
        try:
            number = (task.folder / JOB).read_text().strip()
        except OSError:
            return None
        if self.cluster == "slurm":
            job = self.submitit.SlurmJob(self.folder, number)
            return job if job.state in ALIVE else None
        return _Left(self.submitit.LocalJob(self.folder, number)) if _lives(int(number)) else None


class _Left:
    """A job of submitit's local executor whose starter is gone: it is known by its process."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.paths = job.paths
        self.state = "GONE"

    def done(self) -> bool:
        return not _lives(int(self.job.job_id))

    def result(self) -> Any:
        return self.job.result()

    def cancel(self) -> None:
        os.kill(int(self.job.job_id), 2)


def _lives(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
