"""Tasks on this machine, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from typing_extensions import Self

from equimodal.system.processes import end, ending, uninterrupted
from equimodal.tasks.engine import Ended
from equimodal.tasks.lock import Lock
from equimodal.tasks.task import DONE, NO_ROOM, WRITTEN, Task, perform

TRIES = 3  # to start a process
PAUSE = 0.1  # seconds between them
_SERVED: dict[int | None, set[str]] = {}  # what the process with this number was told to import


class Local:
    """Runs tasks in processes of this machine, so many at once.

    A task has a process of its own: what it costs, by a crash, a limit or a leak, it costs itself,
    and what runs in it may start processes too. On Linux they are forked from one that has imported
    what they need, which takes some hundredths of a second.

    Args:
        workers: processes at once.
        preload: modules that tasks need.
        lock: that processes hold too, so that one that outlives this one for a moment does not
            write beside those of the next.
    """

    def __init__(self, workers: int, preload: Sequence[str] = (), lock: Lock | None = None) -> None:
        self.workers = workers
        self.forked = sys.platform == "linux"
        self.context: Any = multiprocessing.get_context("forkserver" if self.forked else "spawn")
        self.preload = {__name__, *preload}
        self.lock = lock
        self.waiting: deque[Task] = deque()
        self.processes: dict[Any, tuple[BaseProcess, Task]] = {}  # by what ends with them

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with uninterrupted():
            end(process for process, _ in self.processes.values())
            self.processes.clear()

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def running(self) -> list[Task]:
        return [task for _, task in self.processes.values()]

    def ended(self, timeout: float) -> list[Ended]:
        while self.waiting and len(self.processes) < self.workers:
            self._start(self.waiting.popleft())
        found = []
        for sentinel in wait(list(self.processes), timeout):
            process, task = self.processes.pop(sentinel)
            process.join()
            code = process.exitcode or 0
            status = code if code in (DONE, WRITTEN, NO_ROOM) else None
            found.append(Ended(task, status, ending(code)))
            process.close()
        return found

    def _start(self, task: Task) -> None:
        # Processes take over that interruptions are not for them, from their very first line. The
        # one that forks them takes seconds to begin, and this one must answer meanwhile.
        for tries in range(TRIES):
            with uninterrupted():
                if self.forked:
                    _serve(self.preload)
            process = self.context.Process(target=_work, args=(task, self.lock), daemon=False)
            try:
                with uninterrupted():
                    process.start()
                    self.processes[process.sentinel] = process, task
                return
            except (EOFError, OSError):
                # It was killed before it could say its number, or what forks it was, which takes
                # a moment to be known.
                if tries == TRIES - 1:
                    raise
                time.sleep(PAUSE)


def _serve(modules: set[str]) -> None:
    """See to it that the process that tasks are forked from has imported these modules.

    A process has one such, and what began it, a notebook or a data loader, said what it imports.
    If that lacks some, another takes its place; the old one ends after what was forked from it.
    """
    server: Any = forkserver._forkserver
    if not modules <= _SERVED.get(server._forkserver_pid, set()):
        with server._lock:
            if server._forkserver_pid is not None:
                os.close(server._forkserver_alive_fd)
            server._forkserver_address = server._forkserver_alive_fd = None
            server._forkserver_pid = None
        known = set(server._preload_modules) - {"__main__"}
        forkserver.set_forkserver_preload(sorted(known | modules))
    forkserver.ensure_running()
    _SERVED.setdefault(server._forkserver_pid, set(server._preload_modules))


def _work(task: Task, lock: Lock | None) -> None:
    # By an exception: what is half written is removed on the way.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_live_with_parent, daemon=True).start()
    sys.exit(perform(task))


def _live_with_parent() -> None:
    """End with the parent, however that has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)
