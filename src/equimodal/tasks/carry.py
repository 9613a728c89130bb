"""Tasks from first to last, on any engine, whatever happens to some of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equimodal.tasks.engine import Ended, Engine
from equimodal.tasks.task import DONE, FAILED, LATE, NO_ROOM, Task

AGAIN = 2  # times that a task is begun again whose process or machine died
OURS = {"SetupError", "MatchError", "StepError", "DivergedError"}  # they say all there is to say
MOMENT = 0.2  # seconds between two looks at how far tasks are


@dataclass(frozen=True)
class Outcome:
    """How a task has ended for good.

    Attributes:
        task: which.
        reason: why it has failed; "" if it is done.
    """

    task: Task
    reason: str = ""


def carry_out(engine: Engine, tasks: Iterable[Task]) -> Iterator[Outcome | None]:
    """Yield how tasks end, and None where none does for a moment.

    One that raises, or that takes too long, has failed; one whose process or machine dies is begun
    again, and goes on from what it has left in its folder, `AGAIN` times at most.

    Args:
        engine: that runs them; entered.
        tasks: to be done. Those whose result is there are not done again.
    """
    left: dict[str, Task] = {}
    for task in tasks:
        if task.done:
            yield Outcome(task)
        else:
            left[task.name] = task
            task.clear()
            engine.submit(task)
    deaths: Counter[str] = Counter()
    while left:
        ends = engine.ended(MOMENT)
        for ended in ends:
            task = ended.task
            reason = why(ended)
            if reason is None:
                deaths[task.name] += 1
                if deaths[task.name] <= AGAIN:
                    task.clear()
                    engine.submit(task)
                    continue
                memory = ", as for want of memory" if "SIGKILL" in ended.how else ""
                reason = f"its process {ended.how}{memory}, {AGAIN + 1} times"
            del left[task.name]
            yield Outcome(task, reason)
        if not ends:
            yield None


def why(ended: Ended) -> str | None:
    """Return why a task has failed, "" where it has not; None where its process died of itself."""
    task = ended.task
    if task.done:
        return ""
    if ended.status == NO_ROOM:
        return "no room left on the disk: make room, then give the same command again"
    if said := failure(task):
        kind, message = said.get("kind"), said.get("message")
        return f"{message}" if kind in OURS else f"{kind}: {message}"
    if late(task):
        return f"took too long: more than {task.limit:g} s"
    return "it ended without a result" if ended.status == DONE else None


def failure(task: Task) -> Mapping[str, Any]:
    """Return what a task has left of the error that ended it; nothing if there was none."""
    return left_in(task.folder)


def left_in(folder: Path) -> Mapping[str, Any]:
    """Return what stands in the folder of a task about the error that ended it."""
    try:
        said = json.loads((folder / FAILED).read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def late(task: Task) -> bool:
    """Whether a task was ended because it took too long."""
    try:
        return (task.folder / LATE).stat().st_size > 0
    except OSError:
        return False
