"""The same tasks on Ray and on SLURM: joined, refused, killed in the middle, found again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from equimodal.errors import SetupError
from equimodal.tasks import carry_out, place
from equimodal.tasks.on_ray import OnRay
from equimodal.tasks.on_slurm import JOB, OnSlurm
from support.chores import chore

PATHS = os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parents[2])])


def missing(library: str) -> bool:
    return importlib.util.find_spec(library) is None


slurm = pytest.mark.skipif(missing("submitit"), reason="submitit is not installed (extra slurm)")
ray = pytest.mark.skipif(missing("ray"), reason="ray is not installed (extra ray)")


@slurm
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


@slurm
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


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Two nodes on loopback with one core each; the address, and the number of the second."""
    if missing("ray"):
        pytest.skip("ray is not installed (extra ray)")
    monkeypatch.setenv("PYTHONPATH", PATHS)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    command = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    port = free_port()
    address = f"127.0.0.1:{port}"
    shared = ["--num-cpus=1", "--num-gpus=0", "--node-ip-address=127.0.0.1", "--block",
              "--disable-usage-stats", "--object-store-memory=80000000"]  # fmt: skip
    nodes = []
    where = tempfile.mkdtemp(prefix="r")  # sockets have short names only
    try:
        for more in (
            ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={where}"],
            [f"--address={address}"],
        ):
            nodes.append(
                subprocess.Popen(
                    [command, "start", *more, *shared],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            time.sleep(5.0)
        yield address, nodes[1].pid
    finally:
        for node in nodes:
            for pid in session_of(node.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(where, ignore_errors=True)


def session_of(leader: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_two_ray_nodes_one_of_them_killed(cluster: tuple[str, int], tmp_path: Path) -> None:
    address, second = cluster
    with pytest.raises(SetupError, match=r"no node of the Ray cluster has 1 CPU and 0\.5 GPU"):
        OnRay(address, gpus=0.5)
    tasks = [chore(str(n), tmp_path, number=n + 10, seconds=0.8) for n in range(4)]
    tasks.append(chore("error", tmp_path, "fail", said="what was expected"))
    found = {}
    killed = False
    with OnRay(address) as engine:
        end = time.monotonic() + 60
        while sum(node["Alive"] for node in engine.ray.nodes()) < 2 and time.monotonic() < end:
            time.sleep(0.2)
        for outcome in carry_out(engine, tasks):
            if outcome is not None:
                found[outcome.task.name] = outcome.reason
            at = [place(task.folder) or 0 for task in tasks]
            if not killed and sum(n > 0 for n in at) >= 2:
                for pid in session_of(second):
                    os.kill(pid, signal.SIGKILL)
                killed = True
    assert killed
    assert found == {**{str(n): "" for n in range(4)}, "error": "what was expected"}
    for n in range(4):
        assert (tmp_path / str(n) / "result.json").read_text() == str((n + 10) ** 2)


@ray
def test_a_cluster_that_is_not_there_is_not_started() -> None:
    with pytest.raises(SetupError, match=r"no Ray cluster could be joined there.*RAY_AUTH_MODE"):
        OnRay(f"127.0.0.1:{free_port()}")
