"""Reading again what a server or a network did not give: after a while, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Read = TypeVar("Read")

RETRIES = 5  # in a row
PAUSE = 0.5  # seconds before the first; each next one waits twice as long
# What a server says that may be otherwise in a moment: asked too soon, or at fault itself.
PASSING = (408, 425, 429, 500, 502, 503, 504)
LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


class Patience:
    """How often in a row reading has failed.

    Args:
        path: that is read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.failed = 0

    def reward(self) -> None:
        """Something came: forget the failures before it."""
        self.failed = 0

    def wait(self, error: Exception) -> None:
        """Wait before it is tried again.

        Raises:
            Exception: the error, if another try would not help.
            ConnectionError: it was tried often enough.
        """
        if "://" not in self.path or not passing(error):
            raise error
        self.failed += 1
        if self.failed > RETRIES:
            last = (error.__cause__ if isinstance(error, LASTING) else None) or error
            waited = PAUSE * (2**RETRIES - 1)
            raise ConnectionError(
                f"{self.path}: gave up after {RETRIES + 1} tries over {waited:g} s: "
                f"{type(last).__name__}: {last}. To go on with the same epoch later: "
                "`loader.go_on(epoch, batches)`"
            ) from error
        time.sleep(PAUSE * 2 ** (self.failed - 1))


def again(path: str, read: Callable[[], Read]) -> Read:
    """Return what a function reads, which is called again where that may help."""
    patience = Patience(path)
    while True:
        try:
            return read()
        except Exception as error:
            patience.wait(error)


def passing(error: BaseException) -> bool:
    """Whether an error may be gone in a moment.

    That of a server says so by its status. fsspec takes a file for missing about which a server
    could not be asked: then the cause says more.

    >>> passing(ConnectionResetError()), passing(FileNotFoundError()), passing(ValueError())
    (True, False, False)
    """
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        return status in PASSING
    if isinstance(error, LASTING):
        return error.__cause__ is not None and passing(error.__cause__)
    if isinstance(error, OSError | TimeoutError):
        return True
    # Those of aiohttp, which is not imported where nothing is read over HTTP.
    return any(kind.__module__.startswith("aiohttp.") for kind in type(error).__mro__)
