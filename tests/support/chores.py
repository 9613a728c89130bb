"""Small tasks for engines: some do what they are told, others do not."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError
from equimodal.system.files import write_whole
from equimodal.tasks import Task, note


def square(spec: dict[str, Any], folder: Path) -> None:
    """Count up to a number, epoch by epoch; go on from where an earlier process was."""
    state = folder / "state.json"
    held = json.loads(state.read_text()) if state.exists() else {"at": 0, "sum": 0}
    while held["at"] < spec["number"]:
        held = {"at": held["at"] + 1, "sum": held["sum"] + spec["number"]}
        write_whole(state, json.dumps(held))
        note(folder, held["at"])
        time.sleep(spec.get("seconds", 0.0))
        if held["at"] == spec.get("dies at") and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    write_whole(folder / "result.json", json.dumps(held["sum"]))


def fail(spec: dict[str, Any], folder: Path) -> None:
    raise SetupError(spec["said"])


def crash(spec: dict[str, Any], folder: Path) -> None:
    with (folder / "tries").open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(spec: dict[str, Any], folder: Path) -> None:
    os._exit(spec["status"])


def hang(spec: dict[str, Any], folder: Path) -> None:
    """Hang in C, with the interpreter's lock held: no thread of Python could do anything."""
    ctypes.PyDLL(None).sleep(1000)


def forget(spec: dict[str, Any], folder: Path) -> None:
    pass


def full(spec: dict[str, Any], folder: Path) -> None:
    raise OSError(errno.ENOSPC, "no room", str(folder))


def start_processes(spec: dict[str, Any], folder: Path) -> None:
    """As a loader of data does that reads with processes of its own."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0.0,))
    process.start()
    process.join()
    write_whole(folder / "result.json", str(process.exitcode))


def imported(spec: dict[str, Any], folder: Path) -> None:
    """Say whether a module is there without having been asked for."""
    write_whole(folder / "result.json", json.dumps(spec["module"] in sys.modules))


def chore(name: str, folder: Path, function: str = "square", **options: Any) -> Task:
    limit = options.pop("limit", None)
    return Task(name, f"{__name__}:{function}", options, folder / name, limit=limit)
