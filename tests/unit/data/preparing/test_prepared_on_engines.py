"""Shards made by jobs of SLURM, as submitit's local executor runs them: the bytes of a local run."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equimodal.cli import main
from equimodal.data.preparing import Summary
from equimodal.data.preparing.folder import TASKS
from equimodal.errors import SetupError
from equimodal.tasks.on_slurm import JOB, OnSlurm
from support.raw_clips import files_of, listed, make_source, prepared

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit is not installed (extra slurm)"
)
TESTS = Path(__file__).parents[3]
PATHS = os.pathsep.join([*filter(None, sys.path), str(TESTS)])

# Python imports a module of this name in every process that it starts.
PATCH = """
import os, signal, time
import av

opened = av.open

def open_(path, *args, **options):
    if path.endswith("c003.mpg"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.endswith("c007.mpg"):
        time.sleep(1000)
    return opened(path, *args, **options)

av.open = open_
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "raw", 10)


def on_jobs(source: Path, out: Path, **options: float) -> Summary:
    engine = OnSlurm(out / TASKS, cluster="local")
    return prepared(listed(source), out, workers=None, engine=engine, **options)


def test_jobs_make_what_processes_of_this_machine_make(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a decoder crashes at one clip, and hangs at another."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), PATHS]))
    summary = on_jobs(source, tmp_path / "out", allow_missing=0.3, time_limit=1.0)
    assert summary.reasons == {"decoder crashed": 1, "took too long": 1}
    code = (
        "from pathlib import Path\nfrom support.raw_clips import listed, prepared\n"
        "if __name__ == '__main__':\n"
        f"    prepared(listed(Path({str(source)!r})), Path({str(tmp_path / 'here')!r}),"
        " allow_missing=0.3, time_limit=1.0)\n"
    )
    (tmp_path / "here.py").write_text(code)
    subprocess.run([sys.executable, str(tmp_path / "here.py")], check=True)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "here")


def test_jobs_of_a_killed_process_are_found_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", PATHS)
    out = tmp_path / "out"
    code = (
        "from pathlib import Path\nfrom equimodal.tasks.on_slurm import OnSlurm\n"
        "from support.raw_clips import listed, prepared\n"
        f"out = Path({str(out)!r})\n"
        "engine = OnSlurm(out / '.tasks', cluster='local')\n"
        f"prepared(listed(Path({str(source)!r})), out, engine=engine, workers=None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while len(list(out.glob(f"{TASKS}/*/*/{JOB}"))) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    scripts = len(list(out.glob(f"{TASKS}/*submitted.pkl")))
    assert scripts == 3
    assert on_jobs(source, out).decoded == 10
    assert not (out / TASKS).exists()
    prepared(listed(source), tmp_path / "here")
    assert files_of(out) == files_of(tmp_path / "here")


def test_what_an_engine_is_not_for_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["prepare", "grid", f"--source={source}", f"--out={tmp_path / 'out'}"]
    assert main([*given, "--address=10.0.0.1:6379"]) == 2
    assert "--address is for --engine ray, found --engine local" in capsys.readouterr().err
    with pytest.raises(SetupError, match="workers: expected 1 or more"):
        prepared(listed(source), tmp_path / "out", workers=0)
