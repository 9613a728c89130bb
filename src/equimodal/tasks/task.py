"""A task, and what a process does that is given one."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equimodal.system.files import write_whole
from equimodal.tasks.limits import limited
from equimodal.tasks.progress import PLACE

FAILED = "failed.json"
LATE = "late.txt"  # where the stack of a task is left that took too long
DONE, WRITTEN, NO_ROOM = 0, 1, errno.ENOSPC  # how `perform` ends


@dataclass(frozen=True)
class Task:
    """What is to be done, such that any process on any machine with the same files can do it.

    Args:
        name: for people.
        function: ``module:function``; it is called with the specification and the folder, and has
            to write the result itself, whole.
        spec: what it is to do; what JSON can hold.
        folder: that is the task's own.
        result: the file that is there when it is done; ``result.json`` in the folder by default.
        limit: seconds that it may take; None for as long as it wants.
    """

    name: str
    function: str
    spec: Mapping[str, Any]
    folder: Path
    result: Path | None = None
    limit: float | None = None

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return (self.result or self.folder / "result.json").exists()

    def clear(self) -> None:
        """Forget how an earlier try went, but not how far it came."""
        for name in (FAILED, LATE, PLACE):
            (self.folder / name).unlink(missing_ok=True)


def perform(task: Task) -> int:
    """Do a task, and leave in its folder why it has failed if it has.

    Returns:
        `DONE`, or `WRITTEN` where the reason stands in the folder, or `NO_ROOM` where the disk is
        full, also for the reason.
    """
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        (task.folder / FAILED).unlink(missing_ok=True)
        with limited(task.limit, task.folder / LATE):
            _function(task.function)(json.loads(json.dumps(task.spec)), task.folder)
    except Exception as error:  # whatever it is, other tasks go on
        try:
            write_whole(task.folder / FAILED, json.dumps(_spelt(error), indent=1) + "\n")
        except OSError:
            return NO_ROOM
        return WRITTEN
    with contextlib.suppress(OSError):
        (task.folder / PLACE).unlink(missing_ok=True)
    return DONE


def _function(name: str) -> Callable[[dict[str, Any], Path], object]:
    module, _, function = name.partition(":")
    found: Callable[[dict[str, Any], Path], object] = getattr(
        importlib.import_module(module), function
    )
    return found


def _spelt(error: Exception) -> dict[str, Any]:
    """Return what is to be known of an error where it was not raised."""
    said: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, OSError) and error.errno is not None:
        said |= {"errno": error.errno, "strerror": error.strerror, "filename": error.filename}
    return {**said, "traceback": "".join(traceback.format_exception(error))}
