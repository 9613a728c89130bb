"""Tasks and shards on a Ray cluster of two nodes: joined, refused, one node killed in the middle."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from equimodal.data.preparing import Progress
from equimodal.data.preparing.folder import TASKS
from equimodal.errors import SetupError
from equimodal.tasks import carry_out, place
from equimodal.tasks.on_ray import OnRay
from equimodal.tasks.reachable import refuse_silence
from support.chores import chore
from support.raw_clips import files_of, listed, make_source, prepared
from support.ray_cluster import PATHS, VARIABLES, Cluster, free_port

ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed (extra ray)"
)

# Python imports a module of this name in every process that it starts.
PATCH = """
import os, signal, time
import av

opened = av.open

def open_(path, *args, **options):
    time.sleep(0.1)
    if path.endswith("c003.mpg"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.endswith("c007.mpg"):
        time.sleep(1000)
    return opened(path, *args, **options)

av.open = open_
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        made = Cluster()
        try:
            yield made
        finally:
            made.end()


@pytest.fixture
def second(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """A second node, which may be killed."""
    node = cluster.add()
    yield node
    cluster.kill(node)


def wait_for_two(engine: OnRay) -> None:
    end = time.monotonic() + 60
    while sum(node["Alive"] for node in engine.ray.nodes()) < 2 and time.monotonic() < end:
        time.sleep(0.1)


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """Something else than Ray, which says something to whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = os.fork()
        if not process:
            while True:
                client, _ = server.accept()
                client.sendall(answer)
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            os.kill(process, 9)
            os.waitpid(process, 0)


def test_where_no_cluster_answers_it_is_said_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray itself takes minutes to."""
    monkeypatch.setattr("equimodal.tasks.reachable.PATIENCE", 0.3)
    start = time.monotonic()
    with pytest.raises(SetupError, match=r"could be joined there \(Connection refused\)\. Name"):
        refuse_silence(f"127.0.0.1:{free_port()}")
    with (
        listening(b"SSH-2.0-OpenSSH\r\n") as address,
        pytest.raises(SetupError, match=r"\(something else than Ray answers\)"),
    ):
        refuse_silence(address)
    with listening(b"") as address, pytest.raises(SetupError, match=r"nobody answers within 0\.3"):
        refuse_silence(address)
    with pytest.raises(SetupError, match=r"no-such-host\.invalid:6379: no Ray cluster could be"):
        refuse_silence("no-such-host.invalid:6379")
    for wrong in ("10.0.0.1", "10.0.0.1:ray", ":6379"):
        with pytest.raises(SetupError, match=f"expected HOST:PORT or auto, found {wrong}"):
            refuse_silence(wrong)
    assert time.monotonic() - start < 10


@ray
def test_who_has_another_token_is_told_of_it(cluster: Cluster) -> None:
    code = f"from equimodal.tasks.on_ray import OnRay\nOnRay({cluster.address!r})"
    start = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_AUTH_TOKEN": "b" * 64},
        capture_output=True,
        text=True,
    )
    last = process.stderr.splitlines()[-1]
    assert "no Ray cluster could be joined there" in last
    assert "set RAY_AUTH_MODE=token here and on every node, with the same token" in last
    assert time.monotonic() - start < 60, "Ray alone takes minutes"


@ray
def test_two_nodes_one_of_them_killed(
    cluster: Cluster, second: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=r"no node of the Ray cluster has 1 CPU and 0\.5 GPU"):
        OnRay(cluster.address, gpus=0.5)
    tasks = [chore(str(n), tmp_path, number=n + 10, seconds=0.2) for n in range(3)]
    tasks.append(chore("error", tmp_path, "fail", said="what was expected"))
    found = {}
    killed = False
    with OnRay(cluster.address) as engine:
        wait_for_two(engine)
        for outcome in carry_out(engine, tasks):
            if outcome is not None:
                found[outcome.task.name] = outcome.reason
            at = [place(task.folder) or 0 for task in tasks]
            if not killed and sum(n > 0 for n in at) >= 2:
                cluster.kill(second)
                killed = True
    assert killed
    assert found == {**{str(n): "" for n in range(3)}, "error": "what was expected"}
    for n in range(3):
        assert (tmp_path / str(n) / "result.json").read_text() == str((n + 10) ** 2)


@ray
def test_shards_are_the_same_bytes_though_a_node_is_killed(
    cluster: Cluster,
    second: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a decoder crashes at one clip, and hangs at another."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), PATHS]))
    source, out = make_source(tmp_path / "raw", 10), tmp_path / "out"
    killed: list[float] = []

    def kill(state: Progress) -> None:
        """Kill the second node as soon as it is at a clip."""
        at = {folder.name: place(folder) for folder in out.glob(f"{TASKS}/*/*")}
        if not killed and any(at.get(name) is not None for name in cluster.tasks_of(second)):
            cluster.kill(second)
            killed.append(state.done)

    options = {"allow_missing": 0.3, "time_limit": 1.0}
    with_engine = OnRay(cluster.address)
    wait_for_two(with_engine)
    summary = prepared(listed(source), out, workers=None, engine=with_engine, show=kill, **options)
    assert killed
    assert summary.reasons == {"decoder crashed": 1, "took too long": 1}
    code = (
        "from pathlib import Path\nfrom support.raw_clips import listed, prepared\n"
        "if __name__ == '__main__':\n"
        f"    prepared(listed(Path({str(source)!r})), Path({str(tmp_path / 'here')!r}),"
        f" **{options!r})\n"
    )
    (tmp_path / "here.py").write_text(code)
    subprocess.run([sys.executable, str(tmp_path / "here.py")], check=True)
    assert files_of(out) == files_of(tmp_path / "here")
