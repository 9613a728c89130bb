"""The right to work in a folder, which one process has at a time, and those it starts."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError

HOLD = ".equimodal.lock"  # in every folder that a command writes to
PATIENCE = 5.0  # seconds for the processes of a killed one to notice that it is gone
SHOWN = 60  # letters of a command in a message


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


_mine: dict[Path, Lock] = {}  # the folders that this process holds


@contextlib.contextmanager
def holding(folder: Path, patience: float | None = None) -> Iterator[Lock]:
    """Make a folder, and keep all other processes from writing to it.

    What holds it already in this process may hold it again. A process that died holds nothing.

    Args:
        folder: to write to.
        patience: see `locked`.

    Raises:
        SetupError: another process holds it; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = folder.resolve()
    if key in _mine:
        yield _mine[key]
        return
    path = folder / HOLD

    def refusal() -> str:
        return (
            f"{folder}: {_named(path)} is at work in it: wait for it, or name another folder "
            "with --out"
        )

    with locked(path, refusal, patience) as lock:
        if lock.descriptor >= 0:
            said = f"{os.getpid()} {socket.gethostname()} {_command()}\n".encode(errors="replace")
            os.ftruncate(lock.descriptor, 0)
            os.pwrite(lock.descriptor, said, 0)
        _mine[key] = lock
        try:
            yield lock
        finally:
            del _mine[key]
            if lock.descriptor >= 0:
                os.ftruncate(lock.descriptor, 0)


def _command() -> str:
    name, *rest = sys.orig_argv[:1] if not sys.argv[0] else [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(["equimodal" if name == "__main__.py" else name, *rest])


def _named(path: Path) -> str:
    """Name the process that wrote itself into a file."""
    try:
        number, host, command = path.read_text(errors="replace").strip().split(" ", 2)
    except (OSError, ValueError):
        return "another process"
    here = host == socket.gethostname()
    shown = command if len(command) <= SHOWN else f"{command[: SHOWN - 3]}..."
    named = f"process {number}{'' if here else f' on {host}'} ({shown})"
    return named if not here or _alive(number) else f"what {named} started"


def _alive(number: str) -> bool:
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):  # not ours to ask
        return True
    return True


@contextlib.contextmanager
def locked(
    path: Path,
    refusal: str | Callable[[], str],
    patience: float | None = None,
    *,
    make: bool = True,
) -> Iterator[Lock]:
    """Keep all other processes out.

    Args:
        path: of the file to lock.
        refusal: what to say to whoever comes second, or a function that returns it.
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
                    raise SetupError(refusal if isinstance(refusal, str) else refusal()) from error
                time.sleep(0.05)
        yield Lock(descriptor)
    finally:
        os.close(descriptor)


def held(path: Path) -> bool:
    """Whether a process holds a lock just now."""
    try:
        with locked(path, "", patience=0.0, make=False):
            return False
    except SetupError:
        return True
    except OSError:
        return False
