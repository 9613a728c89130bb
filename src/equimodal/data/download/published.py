"""What a publisher offers: files with addresses, and what is to be known before fetching them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from equimodal.errors import SetupError

# From the names in an archive and the folder of the data set: which of them to unpack, and as what.
Choice = Callable[[Sequence[str], Path], Mapping[str, str]]


@dataclass(frozen=True)
class Take:
    """What to take out of an archive.

    Args:
        name: of these files together, unique in the data set.
        choose: returns for names in the archive their paths below the folder of the data set, with
            "/" between folders. It may look at what is in the folder already.
    """

    name: str
    choose: Choice


@dataclass(frozen=True)
class File:
    """A file to fetch: one of the data set, or an archive of such files.

    Args:
        name: unique in the data set; also its path below the address of a mirror.
        address: where the publisher offers it.
        checksum: such as "md5:f68b...", or None if the publisher states none.
        size: in bytes, as far as known; for the progress and the space needed.
        place: its path below the folder of the data set; None for an archive.
        takes: what to take out of an archive.
    """

    name: str
    address: str
    checksum: str | None = None
    size: int = 0
    place: str | None = None
    takes: tuple[Take, ...] = ()


@dataclass(frozen=True)
class Published:
    """A data set with a direct public address.

    Args:
        name: what the command calls it.
        title: in words.
        page: where people read about it, and fetch it by hand if the address fails.
        licence: its terms.
        citation: what to cite.
        layout: what the folder holds in the end.
        files: to fetch.
        prepare: the name that `equimodal prepare` knows the folder by.
        index: an archive that lists further files, fetched first.
        listed: reads the further files from the index.
        checksums: address of the publisher's own list of checksums (a record of Zenodo).
        estimate: bytes of all files, where `files` does not say.
        note: what else to know before fetching.
    """

    name: str
    title: str
    page: str
    licence: str
    citation: str
    layout: str
    files: tuple[File, ...]
    prepare: str
    index: File | None = None
    listed: Callable[[Path], tuple[File, ...]] | None = None
    checksums: str | None = None
    estimate: int = 0
    note: str = ""

    @property
    def size(self) -> int:
        """Bytes to fetch in all, as far as known beforehand."""
        index = self.index.size if self.index else 0
        return self.estimate or index + sum(file.size for file in self.files)

    @property
    def space(self) -> int:
        """Bytes on disk in the end, as far as known: archives stay beside their files."""
        return self.size + sum(file.size for file in self.files if file.takes)

    def mirrored(self, mirror: str) -> Published:
        """Return the same data set from another address, below which its files have their names.

        Checksums that are known here still hold; the publisher's list is not asked.

        Raises:
            SetupError: the address is not one of HTTP.
        """
        if not mirror.startswith(("http://", "https://")):
            raise SetupError(f"--mirror: expected an address with http:// or https://: {mirror}")

        def there(file: File) -> File:
            return replace(file, address=f"{mirror.rstrip('/')}/{quote(file.name)}")

        listed = self.listed
        return replace(
            self,
            files=tuple(there(file) for file in self.files),
            index=there(self.index) if self.index else None,
            listed=(lambda path: tuple(there(file) for file in listed(path))) if listed else None,
            checksums=None,
        )


@dataclass(frozen=True)
class Elsewhere:
    """A data set without a direct public address: the clips are on YouTube.

    Args:
        name: what the command calls it.
        title: in words.
        where: whom to ask, with addresses.
        layout: which files `equimodal prepare` wants where.
        prepare: the name that `equimodal prepare` knows it by.
    """

    name: str
    title: str
    where: str
    layout: str
    prepare: str
