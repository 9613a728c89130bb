"""Interruptions of the command while it is still being imported are as quiet as later ones.

Importing PyTorch takes a second or more, and none of our code runs before it. In a program that
only imports the package nothing is changed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

INTERRUPTED = 130


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


def hear() -> None:
    """Let interruptions be raised again, if they were not."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if as_command() and threading.current_thread() is threading.main_thread():
    _heard = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, leave if _heard is signal.default_int_handler else _heard)
