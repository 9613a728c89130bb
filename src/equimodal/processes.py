"""Processes: starting ones that an interruption is not for, ending them, saying how they ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess

PATIENCE = 10.0  # seconds that a process has to end what it is at


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore interruptions for a moment; processes that are started ignore them for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def end(processes: Iterable[BaseProcess]) -> None:
    """Ask processes to end, and end those that do not."""
    living = list(processes)
    for process in living:
        process.terminate()
    for process in living:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def ending(code: int) -> str:
    """Say how a process has ended, from its exit code.

    >>> ending(1), ending(-11)
    ('ended with status 1', 'ended by SIGSEGV')
    """
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
