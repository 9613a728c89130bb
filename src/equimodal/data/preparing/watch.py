"""How long every worker has been at its clip."""

from __future__ import annotations

import time
from collections.abc import Collection
from multiprocessing.connection import Connection, wait

MOMENT = 0.2  # seconds to wait for a word of any worker


class Watch:
    """Waits for workers, and knows which of them have been at one clip for too long.

    Only time for which this process was awake counts: workers are stopped together with it, by
    Ctrl-Z or with the machine, and have done nothing in between.

    Args:
        limit: seconds that a clip may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._now = 0.0
        self._since: dict[Connection, float] = {}

    def heard(self, pipes: Collection[Connection]) -> list[Connection]:
        """Return those that have something to say, after a moment at most."""
        before = time.monotonic()
        ready = wait(list(pipes), MOMENT)
        self._now += min(time.monotonic() - before, MOMENT)
        return [pipe for pipe in ready if isinstance(pipe, Connection)]

    def begin(self, pipe: Connection) -> None:
        """Note that a worker begins with a clip."""
        self._since[pipe] = self._now

    def rest(self, pipe: Connection) -> None:
        """Note that a worker is at no clip."""
        self._since.pop(pipe, None)

    def late(self) -> list[Connection]:
        """Return those that are at their clip for longer than the limit."""
        return [pipe for pipe, since in self._since.items() if self._now - since > self.limit]
