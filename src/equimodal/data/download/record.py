"""Checksums and sizes from a record of Zenodo: its own list of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from equimodal.data.download.published import File

if TYPE_CHECKING:
    import requests


def stated(
    session: requests.Session, address: str, timeout: float
) -> Mapping[str, tuple[str, int]] | None:
    """Return checksum and size of every file of a record by name, or None if it cannot be read."""
    import requests

    try:
        response = session.get(address, timeout=timeout)
        response.raise_for_status()
        return {
            str(file["key"]): (str(file["checksum"]), int(file["size"]))
            for file in response.json()["files"]
            if str(file["checksum"]).startswith("md5:")
        }
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None


def completed(files: Sequence[File], known: Mapping[str, tuple[str, int]]) -> tuple[File, ...]:
    """Return files with what their publisher states now."""
    return tuple(
        replace(file, checksum=known[file.name][0], size=known[file.name][1])
        if file.name in known
        else file
        for file in files
    )
