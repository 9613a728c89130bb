"""Interruptions of the command: at every moment as quiet as in the middle of its work.

Importing PyTorch and what a command needs takes seconds, and so does the end of the interpreter:
there an interruption ends the process at once. In between it is a `KeyboardInterrupt`, but never
where Python or a library would swallow it, with a traceback or without: within an import, or a
finalizer. In a program that only imports the package nothing is changed.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

INTERRUPTED = 130
MOMENT = 0.02  # seconds until an interruption that came at a bad moment is tried again
PATIENCE = 5.0  # seconds that an import may put one off


def as_command() -> bool:
    """Whether this process is `equimodal`, or ``python -m equimodal``."""
    given = sys.orig_argv
    if Path(sys.argv[0] if sys.argv else "").stem == "equimodal":
        return True
    return "-m" in given[:-1] and given[given.index("-m") + 1] == "equimodal"


def leave(number: int, frame: object) -> None:
    """End at once, without a traceback."""
    os.write(2, b"equimodal: interrupted\n")
    os._exit(INTERRUPTED)


class Interrupt:
    """Raises interruptions; one that comes within an import is put off to its end.

    There C code turns it into an error of its own, or drops it. A module that takes longer than
    `PATIENCE` does more than to be imported, and is interrupted.
    """

    def __init__(self) -> None:
        self.since: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.since = time.monotonic() if self.since is None else self.since
        if _imports(frame) and time.monotonic() - self.since < PATIENCE:
            _again()
            return
        self.since = None
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def hearing() -> Iterator[None]:
    """Let interruptions be raised, where this process is the command; afterwards it is at its end.

    One that comes within a finalizer, where Python prints and forgets it, is raised after it.
    """
    if signal.getsignal(signal.SIGINT) is not leave:
        yield
        return
    forgotten = sys.unraisablehook

    def unforgotten(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _again()
        else:
            forgotten(unraisable)

    sys.unraisablehook = unforgotten
    signal.signal(signal.SIGINT, Interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, leave)


def _again() -> None:
    """Let the interruption come once more, in a moment."""
    timer = threading.Timer(MOMENT, _to_main)
    timer.daemon = True
    timer.start()


def _to_main() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # it ends a call that waits, too
    else:
        _thread.interrupt_main()


if as_command() and threading.current_thread() is threading.main_thread():
    _heard = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, leave if _heard is signal.default_int_handler else _heard)
