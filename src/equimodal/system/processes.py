"""Processes: starting ones that an interruption is not for, ending them, saying how they ended."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

PATIENCE = 10.0  # seconds that a process has to end what it is at


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put interruptions off for a moment; processes that are started never hear any.

    One that comes meanwhile is heard at the end, not lost. In threads other than the main one,
    which is the one that hears interruptions, only what is started is kept from them.
    """
    resource_tracker.ensure_running()  # when it starts it unblocks what is blocked below
    came: list[int] = []
    with contextlib.ExitStack() as put_back:
        if threading.current_thread() is threading.main_thread():
            heard = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
            put_back.callback(signal.signal, signal.SIGINT, heard)
        if sys.platform != "win32":
            # Processes inherit what is blocked, but not a handler. A thread of a library that
            # does not block it may still take the signal: hence the handler.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            put_back.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
        yield
    if came:
        signal.raise_signal(signal.SIGINT)


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
