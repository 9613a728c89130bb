"""The files of a prepared folder, and who may write to it."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equimodal.data.preparing.changes import EXAMPLES, changes
from equimodal.data.preparing.plan import FORMAT, SPLITS, Plan, text
from equimodal.errors import SetupError
from equimodal.system.files import PARTIAL, write_whole
from equimodal.tasks import HOLD, Lock, holding

PLAN = "plan.json"
DATASET = "dataset.json"
FAILURES = "failures.csv"
CARD = "README.md"
REMARKS = "remarks.csv"
DATA = "data"  # the folder of shards
RECORDS = "shards"  # the folder of what is known about each of them
TASKS = ".tasks"  # the folder in which processes say how far they are
SHARD = re.compile(
    rf"({'|'.join(SPLITS)})-\d{{5,}}-of-\d{{5,}}\.(parquet|json)((\.\w+)?{PARTIAL})?"
)
PATIENCE = 5.0  # seconds for the workers of a killed process to notice that it is gone
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Make a folder, and keep all other processes from preparing into it.

    Raises:
        SetupError: another process does, or the folder holds something else.
    """
    _refuse_others(folder)
    with holding(folder, PATIENCE) as held:
        yield held


def claim(folder: Path, plan: Plan) -> None:
    """Note what is prepared here, or check that it is what was begun.

    Raises:
        SetupError: it is something else; the message says in what it differs.
    """
    path = folder / PLAN
    now = plan.content()
    if path.exists():
        then = _json(path)
        if then is None or then.get("format") != FORMAT:
            raise SetupError(
                f"{path} is damaged, or of another version of equimodal: give --fresh to make the "
                "folder anew, or name another --out"
            )
        if found := changes(then, now):
            more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
            raise SetupError(
                f"{folder} was begun from another source, or otherwise: {'; '.join(found[:8])}"
                f"{more}: give --fresh to make it anew, or name another --out"
            )
    else:
        write_whole(path, text(now))
    for name in (DATA, RECORDS):
        (folder / name).mkdir(exist_ok=True)


def clear(folder: Path) -> None:
    """Remove what was prepared in a folder, and nothing else in it."""
    if not (folder / PLAN).exists():
        return
    # Jobs that an earlier process has left end where they find no place to say how far they are.
    shutil.rmtree(folder / TASKS, ignore_errors=True)
    # The plan last: until then the folder is known for one of ours.
    (folder / DATASET).unlink(missing_ok=True)
    for name in (DATA, RECORDS):
        for path in _shards(folder / name):
            path.unlink()
        with contextlib.suppress(OSError):  # something of the user's is in it, or it is not there
            (folder / name).rmdir()
    for name in (CARD, FAILURES, REMARKS, PLAN):
        (folder / name).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what was half written when a process ended."""
    for name in (DATA, RECORDS):
        for path in _shards(folder / name):
            if path.name.endswith(PARTIAL):
                path.unlink(missing_ok=True)
    for name in (PLAN, DATASET, CARD, FAILURES, REMARKS):
        (folder / f"{name}{PARTIAL}").unlink(missing_ok=True)


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say in one line what the system refuses, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            message = (
                f"{folder}: no room left on the disk: make room, then give the same command again: "
                "finished shards stay"
            )
            raise _again(error, message) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"{error.filename or folder}: {error.strerror}: allow it, or name another"
            raise _again(error, message) from error
        raise


def _again(error: OSError, message: str) -> OSError:
    made = OSError(message)
    made.errno = error.errno  # not by the constructor, which would put it into the message
    return made


def _refuse_others(folder: Path) -> None:
    if folder.is_file():
        raise SetupError(f"{folder} is a file, expected a folder")
    if not folder.is_dir() or (folder / PLAN).exists():
        return
    ours = {HOLD, f"{PLAN}{PARTIAL}"}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others:
        more = ", ..." if len(others) > EXAMPLES else ""
        raise SetupError(
            f"{folder} holds other things ({', '.join(others[:EXAMPLES])}{more}): expected an "
            "empty or a new folder: name another --out"
        )


def _shards(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if SHARD.fullmatch(path.name))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
