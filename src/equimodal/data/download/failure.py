"""What goes wrong between a publisher and a disk."""

from __future__ import annotations

import errno
import gzip
import tarfile
import zipfile
import zlib
from pathlib import Path

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError)


class DownloadError(OSError):
    """A file could not be fetched or unpacked: the message says why and what to do."""


class DamagedError(DownloadError):
    """An archive that cannot be read to its end.

    Args:
        archive: its path.
        error: of the reader; of several lines the first is said.
    """

    def __init__(self, archive: Path, error: Exception) -> None:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        super().__init__(f"{archive} is damaged or no archive: {reason}")


def is_full(error: OSError) -> bool:
    """Tell whether an error means that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def readable(size: float) -> str:
    """Return a number of bytes in words.

    >>> readable(16_419_872)
    '16.4 MB'
    >>> readable(512)
    '512 bytes'
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"
