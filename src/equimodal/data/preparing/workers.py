"""The processes that make shards. A decoder that crashes or hangs costs one of them, no more."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from equimodal.data.preparing.folder import Lock
from equimodal.data.preparing.plan import Shard
from equimodal.data.preparing.record import Record
from equimodal.data.preparing.shard import Task
from equimodal.data.preparing.watch import Watch
from equimodal.data.preparing.worker import Job, Told, work
from equimodal.system.processes import end, ending, uninterrupted

TRIES = 2  # crashes or hangs at one clip after which it is left out
DEATHS = 3  # in a row, not at a clip, after which something else must be wrong


@dataclass(frozen=True)
class Step:
    """A worker has begun with a clip, or finished a shard.

    Args:
        shard: which.
        place: how many of its clips are behind it.
        record: if it is finished.
    """

    shard: Shard
    place: int
    record: Record | None = None


class Workers:
    """Processes that make shards; a context, at whose end none of them lives.

    Every worker has a pipe of its own: a queue between them would be locked for all by one that
    dies while it writes.

    Args:
        task: how shards are made.
        shards: to make.
        number: of processes, at most.
        lock: of the folder; every worker holds it too.
        limit: seconds that a clip may take; a worker that is at one for longer is ended.
    """

    def __init__(
        self, task: Task, shards: Sequence[Shard], number: int, lock: Lock, limit: float
    ) -> None:
        self.task = task
        self.waiting = deque(shards)
        self.number = number
        self.lock = lock
        self.context = _context()
        self.processes: dict[Connection, BaseProcess] = {}
        self.at: dict[Connection, tuple[Shard, int | None]] = {}
        self.idle: list[Connection] = []
        self.watch = Watch(limit)
        self.ended: set[Connection] = set()  # those that were at a clip for too long
        self.crashes: Counter[str] = Counter()  # by the id of the clip
        self.crashed: dict[str, str] = {}  # reasons, of clips that are left out
        self.deaths = 0

    def __enter__(self) -> Workers:
        return self

    def steps(self) -> Iterator[Step]:
        """Yield what happens until all shards are made.

        Raises:
            SetupError: the source has changed.
            OSError: a file cannot be read or written.
            RuntimeError: a worker has failed for a reason of its own; the message holds its
                traceback. Or workers die whatever they do.
        """
        while self.waiting or self.at:
            while len(self.processes) < min(self.number, len(self.waiting) + len(self.at)):
                self._start()
            for pipe in self.watch.heard(self.processes):
                try:
                    told: Told = pipe.recv()
                except (EOFError, ConnectionResetError):
                    self._died(pipe)
                else:
                    yield from self._heard(pipe, told)
            self._end_late()
            self._hand_out()

    def _start(self) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=work, args=(self.task, theirs, self.lock), daemon=True
        )
        # Workers take over that interruptions are not for them, from their very first line. The
        # process that forks them takes seconds to begin, and this one must answer meanwhile.
        if self.context.get_start_method() == "forkserver":
            with uninterrupted():
                forkserver.ensure_running()
            process.start()
        else:
            with uninterrupted():
                process.start()
        self.processes[ours] = process
        theirs.close()  # the pipe ends when the worker does

    def _heard(self, pipe: Connection, told: Told) -> Iterator[Step]:
        if told.error is not None:
            raise told.error
        if told.record is not None:
            shard, _ = self.at.pop(pipe)
            self.watch.rest(pipe)
            self.deaths = 0
            yield Step(shard, len(shard.clips), told.record)
        elif told.place is not None:
            shard, _ = self.at[pipe]
            self.at[pipe] = (shard, told.place)
            if told.place < len(shard.clips):
                self.watch.begin(pipe)
            else:
                self.watch.rest(pipe)
            yield Step(shard, told.place)
        else:
            self.idle.append(pipe)

    def _hand_out(self) -> None:
        while self.idle and self.waiting:
            pipe, shard = self.idle.pop(), self.waiting.popleft()
            self.at[pipe] = (shard, None)
            crashed = {c.id: self.crashed[c.id] for c in shard.clips if c.id in self.crashed}
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # it has died: its pipe will say so
                pipe.send(Job(shard, crashed))

    def _end_late(self) -> None:
        for pipe in self.watch.late():
            self.processes[pipe].kill()  # its pipe will say when that is done
            self.watch.rest(pipe)
            self.ended.add(pipe)

    def _died(self, pipe: Connection) -> None:
        """Put back the shard that a dead worker was at, and find out whether a clip is to blame."""
        process = self.processes.pop(pipe)
        if pipe in self.idle:
            self.idle.remove(pipe)
        process.join()
        pipe.close()
        shard, place = self.at.pop(pipe, (None, None))
        self.watch.rest(pipe)
        how = ending(process.exitcode or 0)
        if shard is not None:
            self.waiting.appendleft(shard)
            if place is not None and place < len(shard.clips):
                clip = shard.clips[place]
                self.crashes[clip.id] += 1
                if self.crashes[clip.id] == TRIES:
                    slow = f"took too long: more than {self.watch.limit:g} s"
                    crashed = f"decoder crashed: {how}"
                    self.crashed[clip.id] = slow if pipe in self.ended else crashed
                return
        self.deaths += 1
        if self.deaths == DEATHS:
            raise RuntimeError(
                f"{DEATHS} workers in a row {how} before they had a clip, or after the last one. A "
                "script that prepares must do so below `if __name__ == '__main__':`; where memory "
                "is short, take fewer workers"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with uninterrupted():
            end(self.processes.values())
            for pipe in self.processes:
                pipe.close()
            self.processes.clear()


def _context() -> Any:
    """Return how processes are started.

    On Linux they are forked from a process of one thread that has imported what they need: one
    that takes the place of another begins at once, and torch is in memory once, not per worker.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["equimodal.data.preparing.worker", "av", "pyarrow.parquet"])
    return context
