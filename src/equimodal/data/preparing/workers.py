"""Shards as tasks. A decoder that crashes or hangs costs a process, and at last a clip, no more."""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from equimodal.data.preparing.folder import RECORDS, TASKS
from equimodal.data.preparing.plan import Shard
from equimodal.data.preparing.record import Record, noted
from equimodal.data.preparing.shard import Task
from equimodal.data.preparing.worker import blame, spelt
from equimodal.errors import SetupError
from equimodal.tasks import Ended, Engine, place
from equimodal.tasks import Task as ToDo
from equimodal.tasks.carry import failure
from equimodal.tasks.task import DONE, NO_ROOM

TRIES = 2  # crashes or hangs at one clip after which it is left out
DEATHS = 3  # in a row, not at a clip, after which something else must be wrong
LOSSES = 10  # machines that are lost while they make one shard
MOMENT = 0.02  # seconds between two looks at it
# Imported once, and not in every process; pandas, where it is there, by pyarrow.
NEEDED = (
    "equimodal.data.preparing.worker",
    "equimodal.data.media",
    "av",
    "pandas",
    "PIL.Image",
    "PIL.JpegImagePlugin",
    "pyarrow.parquet",
)


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

    Args:
        task: how shards are made.
        shards: to make.
        engine: where they run.
        number: of shards that it is given at once, at most.
        limit: seconds that a clip may take; a process that is at one for longer is ended.
        key: of the plan. Jobs of another one, left by a process that was killed, are none of ours.
    """

    def __init__(
        self,
        task: Task,
        shards: Sequence[Shard],
        engine: Engine,
        number: int,
        limit: float,
        key: str,
    ) -> None:
        self.task = task
        self.shards = {shard.name: shard for shard in shards}
        self.waiting = deque(shards)
        self.limit = limit
        self.engine = engine
        self.number = number
        self.folder = task.folder / TASKS / key
        self.at: dict[str, int] = {}
        self.crashes: Counter[str] = Counter()  # by the id of the clip
        self.crashed: dict[str, str] = {}  # reasons, of clips that are left out
        self.deaths = 0
        self.losses: Counter[str] = Counter()  # by the name of the shard

    def __enter__(self) -> Workers:
        self.engine.__enter__()
        return self

    def steps(self) -> Iterator[Step]:
        """Yield what happens until all shards are made.

        Raises:
            SetupError: the source has changed.
            OSError: a file cannot be read or written.
            RuntimeError: a process has failed for a reason of its own; the message holds its
                traceback. Or processes die whatever they do.
        """
        while self.waiting or self.at:
            while self.waiting and len(self.at) < self.number:
                self._begin(self.waiting.popleft())
            for ended in self.engine.ended(MOMENT):
                yield from self._ended(ended)
            for todo in self.engine.running():
                now = place(todo.folder)
                if now is not None and now > self.at[todo.name]:
                    self.at[todo.name] = now
                    yield Step(self.shards[todo.name], now)

    def _begin(self, shard: Shard) -> None:
        crashed = {c.id: self.crashed[c.id] for c in shard.clips if c.id in self.crashed}
        todo = ToDo(
            shard.name,
            "equimodal.data.preparing.worker:make_shard",
            spelt(shard, self.task, crashed, self.limit),
            self.folder / shard.name,
            self.task.folder / RECORDS / f"{shard.name}.json",
        )
        todo.clear()
        self.at[shard.name] = -1
        self.engine.submit(todo)

    def _ended(self, ended: Ended) -> Iterator[Step]:
        shard = self.shards[ended.task.name]
        del self.at[shard.name]
        if ended.status == DONE and (record := noted(self.task.folder, shard)) is not None:
            self.deaths = 0
            yield Step(shard, len(shard.clips), record)
            return
        if ended.status == NO_ROOM:
            raise OSError(NO_ROOM, "no room left", str(self.task.folder))
        if said := failure(ended.task):
            if said["kind"] == SetupError.__name__:
                raise SetupError(said["message"])
            if "errno" in said:
                raise OSError(said["errno"], said["strerror"] or said["message"], said["filename"])
            raise RuntimeError(f"while making {shard.name}:\n{said['traceback']}")
        self._died(ended, shard)

    def _died(self, ended: Ended, shard: Shard) -> None:
        """Put back the shard that a dead process was at, and find out if a clip is to blame."""
        self.waiting.appendleft(shard)
        if ended.machine:
            self.losses[shard.name] += 1
            if self.losses[shard.name] == LOSSES:
                raise RuntimeError(f"{LOSSES} machines were lost while they made {shard.name}")
            return
        at = place(ended.task.folder)
        if at is not None and at < len(shard.clips):
            clip = shard.clips[at]
            self.crashes[clip.id] += 1
            if self.crashes[clip.id] == TRIES:
                self.crashed[clip.id] = blame(ended.task.folder, self.limit, ended.how)
            return
        self.deaths += 1
        if self.deaths == DEATHS:
            raise RuntimeError(
                f"{DEATHS} workers in a row {ended.how} before they had a clip, or after the last "
                "one. A script that prepares must do so below `if __name__ == '__main__':`; where "
                "memory is short, take fewer workers"
            )

    def __exit__(self, *error: object) -> None:
        self.engine.__exit__(*error)
        shutil.rmtree(self.task.folder / TASKS, ignore_errors=True)
