"""Archives: what is wanted of them, whole and in its place, or nothing."""

from __future__ import annotations

import filecmp
import json
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from equimodal.data.download.failure import (
    BROKEN,
    DamagedError,
    DownloadError,
    is_full,
    readable,
)
from equimodal.data.download.published import Take

CHUNK = 1 << 20


def unpack(archive: Path, root: Path, take: Take, record: Path) -> int:
    """Unpack what is wanted of an archive, and return how many files that is.

    Files are written to a folder beside the archive, and moved to their places when all are there.
    What is in its place already is left alone if it is the same.

    Args:
        archive: a .zip or .tar(.gz) file.
        root: the folder of the data set.
        take: what is wanted.
        record: where to note what was unpacked; written last.

    Raises:
        DamagedError: the archive is damaged, or is none.
        DownloadError: a path in it leads out of its folder, nothing in it is wanted, the disk has
            no room, or another file is in the way. Nothing was changed.
    """
    # Hidden: layouts look into all other folders below that of the data set.
    fresh = record.with_name(f".{record.stem}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with _opened(archive) as members:
            inside(members, archive)
            places = dict(take.choose(list(members), root))
            inside(places.values(), archive)
            if not places:
                raise DownloadError(
                    f"{archive}: nothing in it looks like {take.name}: found "
                    f"{', '.join(list(members)[:3]) or 'nothing'}, ..."
                )
            if len(set(places.values())) < len(places):
                raise DownloadError(f"{archive}: expected each file once, found two of one name")
            _refuse_too_much(archive, sum(members[name].size for name in places))
            for name, place in places.items():
                target = fresh / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as sink, members[name].open() or BytesIO() as source:
                    shutil.copyfileobj(source, sink, CHUNK)
                if target.stat().st_size != members[name].size:
                    raise EOFError(f"{name} is cut off")
        _refuse_others(fresh, root, archive)
        sizes = {place: (fresh / place).stat().st_size for place in sorted(places.values())}
        _settle(fresh, root)
        _write(record, sizes)
    except BROKEN as error:
        raise DamagedError(archive, error) from error
    except OSError as error:
        if is_full(error):
            raise DownloadError(
                f"{archive}: the disk is full: make room, and the same command unpacks it"
            ) from error
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return len(sizes)


def unpacked(record: Path, root: Path) -> bool:
    """Tell whether all that was unpacked by a record is still there, with its size."""
    try:
        sizes = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return all(
        (root / place).is_file() and (root / place).stat().st_size == size
        for place, size in sizes.items()
    )


def inside(names: Iterable[str], archive: Path) -> None:
    """Refuse names that lead out of the folder.

    Raises:
        DownloadError: one does.
    """
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise DownloadError(
                f"{archive}: expected paths within the archive, found {name!r}, which leads out "
                "of the folder: nothing was unpacked; do not trust this file"
            )


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its size, and how to open it."""

    size: int
    open: Callable[[], IO[bytes] | None]


@contextmanager
def _opened(path: Path) -> Iterator[dict[str, _Member]]:
    """Open an archive as its regular files by name: links and devices are never made."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield {
                info.filename: _Member(info.file_size, partial(archive.open, info))
                for info in archive.infolist()
                if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
            }
    else:
        with tarfile.open(path) as archive:
            yield {
                info.name: _Member(info.size, partial(archive.extractfile, info))
                for info in archive
                if info.isreg()
            }


def _refuse_too_much(archive: Path, size: int) -> None:
    free = shutil.disk_usage(archive.parent).free
    if size > free:
        raise DownloadError(
            f"{archive}: unpacked it takes {readable(size)}, {readable(free)} are free: make room, "
            "and the same command goes on"
        )


def _refuse_others(fresh: Path, root: Path, archive: Path) -> None:
    """Refuse to write over files that are not those of the archive."""
    for file in fresh.rglob("*"):
        place = root / file.relative_to(fresh)
        if file.is_file() and place.exists() and not _same(file, place):
            raise DownloadError(
                f"{place} is there, but is not that of {archive.name}: move it away, and the same "
                "command unpacks it"
            )


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def _settle(source: Path, target: Path) -> None:
    """Move files to their places: a folder that is not there yet in one step."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        return
    for child in sorted(source.iterdir()):
        place = target / child.name
        if child.is_dir():
            _settle(child, place)
        else:
            child.replace(place)


def _write(record: Path, sizes: Mapping[str, int]) -> None:
    partial = record.with_name(f"{record.name}.partial")
    partial.write_text(json.dumps(sizes, indent=0) + "\n")
    partial.replace(record)
