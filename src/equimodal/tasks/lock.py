"""The right to work in a folder, which one process has at a time, and those it starts."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError

PATIENCE = 5.0  # seconds for the processes of a killed one to notice that it is gone


class Lock:
    """The right; it ends with the last process that holds it, however that ends.

    Args:
        descriptor: of the locked file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        if self.descriptor < 0:
            return Lock, (-1,)
        return _handed, (reduction.DupFd(self.descriptor),)


def _handed(duplicate: Any) -> Lock:
    return Lock(duplicate.detach())


@contextlib.contextmanager
def locked(
    path: Path, refusal: str, patience: float | None = None, *, make: bool = True
) -> Iterator[Lock]:
    """Keep all other processes out, and tell them who is in.

    The system frees what a dead process has held: a lock is never left behind.

    Args:
        path: of the file to lock.
        refusal: what to say to whoever comes second.
        patience: seconds to wait for a process that is about to end; `PATIENCE` by default.
        make: the file, if it is not there.

    Raises:
        SetupError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # on Windows, where nobody is kept out
        yield Lock(-1)
        return
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0), 0o644)
    try:
        start = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() - start > (PATIENCE if patience is None else patience):
                    who = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
                    raise SetupError(f"{refusal} (begun by {who})" if who else refusal) from error
                time.sleep(0.05)
        with _named(descriptor) if make else contextlib.nullcontext():
            yield Lock(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(descriptor: int) -> Iterator[None]:
    """Note in a locked file which process it is, for as long as it has the lock."""
    with contextlib.suppress(OSError):  # a full disk: then it has no name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)


def held(path: Path) -> bool:
    """Whether a process holds a lock just now."""
    try:
        with locked(path, "", patience=0.0, make=False):
            return False
    except SetupError:
        return True
    except OSError:
        return False
