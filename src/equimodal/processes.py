"""Starting processes that an interruption is not for, and saying how one has ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put interruptions off for a moment; processes that are started ignore them for good.

    One that comes meanwhile is heard at the end: starting processes can take seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(number: int, frame: object) -> None:
        nonlocal came
        came = True

    heard = signal.signal(signal.SIGINT, note)
    # Who is started inherits that it is blocked, as it would not inherit a handler.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, heard)
    if came and callable(heard):
        heard(signal.SIGINT, None)


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
