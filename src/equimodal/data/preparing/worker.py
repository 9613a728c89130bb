"""A process that makes shards until it is told no more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from typing import Any

from equimodal.data.preparing.folder import Lock
from equimodal.data.preparing.plan import Shard
from equimodal.data.preparing.record import Record
from equimodal.data.preparing.shard import Task, make
from equimodal.errors import SetupError


@dataclass(frozen=True)
class Job:
    """A shard to make.

    Args:
        shard: which.
        crashed: ids of clips to leave out, because their decoder crashed or hung, with the reason.
    """

    shard: Shard
    crashed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """What a worker tells its parent.

    Attributes:
        place: of the clip that it begins with, or the number of clips once it has decoded all.
        record: of the shard that is finished.
        error: that keeps it from going on, to be raised by the parent.

    All are None when it asks for the next shard.
    """

    place: int | None = None
    record: Record | None = None
    error: Exception | None = None


def work(task: Task, parent: Connection, lock: Lock) -> None:
    """Make the shards that the parent sends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends us
    threading.Thread(target=_live_with_parent, daemon=True).start()
    pa: Any = import_module("pyarrow")  # untyped
    pa.set_cpu_count(1)
    try:
        while True:
            parent.send(Told())
            job: Job = parent.recv()
            parent.send(_made(job, task, parent))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the parent is gone


def _made(job: Job, task: Task, parent: Connection) -> Told:
    def tell(place: int) -> None:
        parent.send(Told(place=place))

    try:
        return Told(record=make(job.shard, task, job.crashed, tell))
    except SetupError as error:
        return Told(error=error)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except OSError as error:
        # Made anew: those of libraries have constructors that pickle does not know.
        return Told(error=OSError(error.errno, error.strerror or str(error), error.filename))
    except Exception:
        return Told(error=RuntimeError(f"while making {job.shard.name}:\n{traceback.format_exc()}"))


def _live_with_parent() -> None:
    """End with the parent, however that has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
