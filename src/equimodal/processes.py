"""Starting processes that an interruption is not for, and saying how one has ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


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
