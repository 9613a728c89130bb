"""The worker processes of a comparison, watched by their parent."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType

from equimodal.compare.queue import RunQueue
from equimodal.compare.worker import Message, Task, work
from equimodal.system.processes import end, ending, uninterrupted


class Pool:
    """Workers that do the runs of a task; a context, at whose end none of them lives.

    Every worker has a pipe of its own: a queue between them would be locked for all by one that
    dies while it writes.

    Args:
        task: what to do.
        queue: of the runs.
        number: of workers.
    """

    def __init__(self, task: Task, queue: RunQueue, number: int) -> None:
        self.queue = queue
        self.workers: dict[Connection, SpawnProcess] = {}
        self.busy: dict[Connection, Message] = {}
        context = multiprocessing.get_context("spawn")
        # Workers take over that interruptions are not for them, from their very first line.
        with uninterrupted():
            for _ in range(number):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(task, theirs), daemon=True)
                process.start()
                theirs.close()  # the pipe ends when the worker does
                self.workers[ours] = process

    def __enter__(self) -> Pool:
        return self

    def messages(self, timeout: float = 0.5) -> Iterator[Message | None]:
        """Yield what the workers say until all have ended; None where they are silent for long.

        A worker that dies has failed the run it was at.
        """
        while self.workers:
            ready = wait(list(self.workers), timeout=timeout)
            if not ready:
                yield None
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    message: Message = pipe.recv()
                except (EOFError, OSError):
                    yield from self._ended(pipe)
                    continue
                if message.kind == "taken":
                    self.busy[pipe] = message
                elif message.kind != "epoch":
                    self.busy.pop(pipe, None)
                yield message

    def _ended(self, pipe: Connection) -> Iterator[Message]:
        process = self.workers.pop(pipe)
        process.join()
        pipe.close()
        run = self.busy.pop(pipe, None)
        if run is not None:
            self.queue.failed(run.value)
        if run is not None or process.exitcode:
            name = "a worker" if run is None else run.run
            yield Message("failed", name, reason=_how(process.exitcode or 0))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with uninterrupted():
            end(self.workers.values())
            for run in self.busy.values():
                self.queue.failed(run.value)
            for pipe in self.workers:
                pipe.close()


def _how(code: int) -> str:
    memory = ", as for want of memory" if code == -signal.SIGKILL else ""
    return f"its process {'was ' if code < 0 else ''}{ending(code)}{memory}"
