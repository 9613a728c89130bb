"""Git LFS: a repository holds pointers, which state the checksum and size of the files."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from equimodal.data.download.failure import BROKEN, DamagedError, DownloadError
from equimodal.data.download.published import File

POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)
LONGEST = 1024  # bytes of a pointer, by the specification of Git LFS


def pointed(
    archive: Path, folders: Sequence[str], suffixes: Sequence[str], base: str
) -> tuple[File, ...]:
    """Return the files that the pointers in an archive of a repository stand for.

    Args:
        archive: a .tar.gz of the repository, all in one folder.
        folders: of the repository to look into.
        suffixes: of the files to take.
        base: address below which the files have their paths.

    Raises:
        DownloadError: there is none, or something else than pointers.
    """
    try:
        with tarfile.open(archive) as members:
            found = list(_files(archive, members, folders, suffixes, base))
    except BROKEN as error:
        raise DamagedError(archive, error) from error
    if not found:
        raise DownloadError(f"{archive}: expected files in {', '.join(folders)}, found none")
    return tuple(sorted(found, key=lambda file: file.name))


def _files(
    archive: Path,
    members: tarfile.TarFile,
    folders: Sequence[str],
    suffixes: Sequence[str],
    base: str,
) -> Iterator[File]:
    for member in members:
        path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
        if not member.isreg() or path.suffix.lower() not in suffixes:
            continue
        if len(path.parts) != 2 or path.parts[0] not in folders:
            continue
        content = members.extractfile(member)
        pointer = POINTER.fullmatch(content.read(LONGEST) if content else b"")
        if pointer is None:
            raise DownloadError(
                f"{archive}: expected a pointer of Git LFS as {path}, found {member.size} "
                "bytes of something else"
            )
        yield File(
            str(path),
            f"{base}/{path}",
            checksum=f"sha256:{pointer[1].decode()}",
            size=int(pointer[2]),
            place=str(path),
        )
