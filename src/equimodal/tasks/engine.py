"""What an engine is: tasks in, ends out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from typing_extensions import Self

from equimodal.tasks.task import Task


@dataclass(frozen=True)
class Ended:
    """A task that runs no more.

    Attributes:
        task: which.
        status: what `perform` has returned; None where its process or machine died.
        how: it died, in words.
        machine: whether its machine is lost, of which the task is not to blame.
    """

    task: Task
    status: int | None
    how: str = ""
    machine: bool = False


@runtime_checkable
class Engine(Protocol):
    """Runs tasks somewhere; a context, at whose end none of them runs that was its own."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def submit(self, task: Task) -> None:
        """Take a task, to be run as soon as there is room."""

    def ended(self, timeout: float) -> list[Ended]:
        """Return the tasks that have ended since, after some seconds at most."""

    def running(self) -> Sequence[Task]:
        """Return the tasks that may be running just now."""
