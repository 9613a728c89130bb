"""The same tasks as jobs of SLURM: submitit's local executor stands in for a cluster."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

from equimodal.tasks import carry_out, place
from equimodal.tasks.on_slurm import JOB, OnSlurm
from support.chores import chore

PATHS = os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parents[2])])


pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit is not installed (extra slurm)"
)


def test_jobs_of_submitit_do_what_processes_of_this_machine_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", PATHS)
    tasks = [
        chore("good", tmp_path, number=3),
        chore("dies once", tmp_path, number=4, **{"dies at": 2}),
        chore("error", tmp_path, "fail", said="what was expected"),
        chore("hang", tmp_path, "hang", limit=1.0),
    ]
    with OnSlurm(tmp_path / "jobs", cluster="local") as engine:
        found = {o.task.name: o.reason for o in carry_out(engine, tasks) if o is not None}
    assert found == {
        "good": "",
        "dies once": "",
        "error": "what was expected",
        "hang": "took too long: more than 1 s",
    }
    assert (tmp_path / "dies once" / "result.json").read_text() == "16"
    assert not list(tmp_path.rglob(JOB))


def test_a_job_is_found_again_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is gone, its job is not: the next one waits for it, and starts no other."""
    monkeypatch.setenv("PYTHONPATH", PATHS)
    task = chore("slow", tmp_path, number=20, seconds=0.1)
    lost = OnSlurm(tmp_path / "jobs", cluster="local")
    lost.submit(task)
    number = (task.folder / JOB).read_text()
    end = time.monotonic() + 60
    while not place(task.folder) and time.monotonic() < end:
        time.sleep(0.05)
    engine = OnSlurm(tmp_path / "jobs", cluster="local")
    engine.submit(task)
    assert (task.folder / JOB).read_text() == number
    (again,) = engine.jobs
    assert str(again.job.job_id) == number.strip()
    while not task.done and time.monotonic() < end:
        time.sleep(0.05)
    assert (task.folder / "result.json").read_text() == "400"
    lost.ended(5.0)
