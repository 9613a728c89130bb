"""An interruption of the command is quiet and heard at any moment, also at those that swallow it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import equimodal

PACKAGE = Path(equimodal.__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")

BEGIN = f"""
import importlib.util, signal, sys, time
spec = importlib.util.spec_from_file_location("commanded", {str(PACKAGE / "commanded.py")!r})
commanded = importlib.util.module_from_spec(spec)
spec.loader.exec_module(commanded)

class Gone:
    def __del__(self):
        signal.raise_signal(END)
        time.sleep(0)

def work(what):
    try:
        with commanded.hearing():
            what()
            time.sleep(60)
    except KeyboardInterrupt:
        print("heard")
"""


def outcome(code: str, folder: Path, name: str = "equimodal") -> tuple[int, str, str]:
    begin = BEGIN.replace("END", "signal.SIGINT")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = {name!r}\n{begin}\n{code}"],
        capture_output=True, text=True, cwd=folder, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_one_within_a_finalizer_is_raised_after_it(tmp_path: Path) -> None:
    assert outcome("work(Gone)", tmp_path) == (0, "heard\n", "")


def test_one_within_an_import_is_raised_after_it(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(0.2)\nprint('whole')\n"
    )
    assert outcome("work(lambda: __import__('slow'))", tmp_path) == (0, "whole\nheard\n", "")


def test_an_import_that_does_not_end_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(60)\n"
    )
    code = "commanded.PATIENCE = 0.1\nwork(lambda: __import__('slow'))"
    assert outcome(code, tmp_path) == (0, "heard\n", "")


@pytest.mark.parametrize(
    "code",
    [
        "signal.raise_signal(signal.SIGINT)",
        "work(lambda: signal.raise_signal(signal.SIGINT)); signal.raise_signal(signal.SIGINT)",
        "import atexit; atexit.register(signal.raise_signal, signal.SIGINT)\n"
        "with commanded.hearing(): pass",
    ],
    ids=["before", "after", "while the interpreter ends"],
)
def test_one_before_and_after_ends_the_process(code: str, tmp_path: Path) -> None:
    status, _, said = outcome(code, tmp_path)
    assert (status, said) == (130, "equimodal: interrupted\n")


def test_another_program_is_left_alone(tmp_path: Path) -> None:
    code = (
        "with commanded.hearing():\n"
        "    print(signal.getsignal(signal.SIGINT).__name__, sys.unraisablehook.__name__)"
    )
    assert outcome(code, tmp_path, "other") == (0, "default_int_handler unraisablehook\n", "")


def test_a_worker_that_is_ended_within_a_finalizer_ends_quietly(tmp_path: Path) -> None:
    code = (
        "from equimodal.tasks.local import _end_in_finalizers\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))\n"
        "_end_in_finalizers()\nGone()\ntime.sleep(60)"
    )
    begin = BEGIN.replace("END", "signal.SIGTERM")
    done = subprocess.run(
        [sys.executable, "-c", begin + code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
