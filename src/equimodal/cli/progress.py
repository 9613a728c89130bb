"""Progress: a bar in a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from equimodal.system.extras import require

require("train", "rich")

from rich.console import Console  # noqa: E402
from rich.progress import (  # noqa: E402
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SHARE = 0.05  # of the work after which a log gets another line,
SECONDS = 300.0  # or time, whichever is first

Show = Callable[[float, float, str], None]  # epochs done, epochs in all, what to say


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """Show how far the work is, on a terminal or in a log."""
    if console.is_terminal:
        with _bar(console) as show:
            yield show
    else:
        lines = Lines(console)
        yield lines
        lines.finish()


class Lines:
    """A line whenever another twentieth of the work is done, and at least every five minutes.

    Args:
        console: where to.
        seconds: the longest silence, while anything is reported at all.
    """

    def __init__(self, console: Console, seconds: float = SECONDS) -> None:
        self.console = console
        self.seconds = seconds
        self.start = self.last = time.monotonic()
        self.shown = -1.0
        self.line = self.printed = ""

    def __call__(self, done: float, total: float, text: str) -> None:
        now = time.monotonic()
        share = done / total
        self.line = f"{text}, {100 * share:.0f}%"
        if share >= self.shown + SHARE or now - self.last >= self.seconds:
            self.shown, self.last = share, now
            self._print()

    def finish(self) -> None:
        """Say how it has ended."""
        if self.line != self.printed:
            self._print()

    def _print(self) -> None:
        self.printed = self.line
        seconds = time.monotonic() - self.start
        self.console.print(f"{self.line}, {seconds:.0f} s", highlight=False, soft_wrap=True)


@contextmanager
def _bar(console: Console) -> Iterator[Show]:
    bar = Progress(
        TextColumn("{task.fields[text]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("", total=None, text="starting")

        def show(done: float, total: float, text: str) -> None:
            if bar.tasks[0].total is None:  # what was there already says nothing about the speed
                bar.reset(task, completed=int(done), total=total, text=text)
            bar.update(task, completed=done, total=total, text=text)

        yield show
