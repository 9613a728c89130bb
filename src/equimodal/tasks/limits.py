"""A limit on the time something may take, which holds whatever it is at."""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def limited(seconds: float | None, late: Path) -> Iterator[None]:
    """End this process if something takes longer.

    By a thread of the interpreter that needs none of its locks, so that a call into C that never
    returns is ended too. Time for which the process was stopped counts.

    Args:
        seconds: None for no limit.
        late: is made for the while; it gets the stacks of the process if that is ended.
    """
    if seconds is None:
        late.unlink(missing_ok=True)
        yield
        return
    with late.open("w") as file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    late.unlink(missing_ok=True)
