"""Files below a source folder: found in a fixed order, and never outside it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from equimodal.errors import SetupError


def found(root: Path, pattern: str) -> list[str]:
    """Return the files below a folder whose names match, sorted, relative to it.

    Hidden files are passed over, such as the ``._x.mp4`` that macOS leaves beside ``x.mp4``.

    Args:
        root: the folder.
        pattern: regular expression for the whole name, in any case.

    Raises:
        SetupError: the folder cannot be read, a link leads out of it, or a name is not UTF-8.
    """
    if not root.is_dir():
        raise SetupError(f"{root}: no such folder")
    matching = re.compile(pattern, re.IGNORECASE)
    real = os.path.realpath(root)
    names, folders = [], [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            raise SetupError(f"{root / folder}: cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            name = f"{folder}{entry.name}"
            wanted = matching.fullmatch(entry.name) is not None
            if entry.is_symlink() and (wanted or entry.is_dir()):
                _refuse_outside(real, root, name, str(root))
            # Where a folder is linked to from inside the root, its files are found anyway.
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
            elif wanted and entry.is_file():
                names.append(_text(root, name))
    return sorted(names)


def inside(root: Path, path: str, place: str) -> str:
    """Return a path that a list names, with "/" between folders and without detours.

    Args:
        root: what the path is relative to.
        path: as the list has it.
        place: of the list, for errors.

    Raises:
        SetupError: it is absolute, or leads out of the folder, by ".." or by a link.
    """
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive
    if absolute or ".." in re.split(r"[/\\]", path) or "\0" in path:
        raise SetupError(
            f"{place}: expected a path below {root}, relative to it, without '..', found {path!r}"
        )
    _refuse_outside(os.path.realpath(root), root, path, place)
    return PurePosixPath(path).as_posix()


def is_file(root: Path, path: str) -> bool:
    """Return whether a file is there; a name longer than the file system allows never is."""
    return os.path.isfile(root / path)  # noqa: PTH113 - Path's raises for long names


def is_there(root: Path, path: str) -> bool:
    """Return whether a file or folder is there; a name that is too long never is."""
    return os.path.exists(root / path)  # noqa: PTH110 - Path's raises for long names


def _refuse_outside(real: str, root: Path, path: str, place: str) -> None:
    target = os.path.realpath(root / path)
    if os.path.commonpath([real, target]) != real:
        raise SetupError(
            f"{place}: {path} is a link out of the source folder, to {target}: put the files into "
            f"{root}, or give the folder that holds them as the source"
        )


def _text(root: Path, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SetupError(
            f"{root}: expected names of files in UTF-8, found {os.fsencode(name)!r}: rename it"
        ) from error
    return name


class Stems:
    """Files by their names without folder and ending.

    Args:
        paths: relative to the source folder.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths: dict[str, list[str]] = {}
        self._asked: set[str] = set()
        for path in paths:
            self._paths.setdefault(PurePosixPath(path).stem, []).append(path)

    def path(self, stem: str) -> str | None:
        """Return the file of this name, None if there is none.

        Raises:
            SetupError: there are several.
        """
        paths = self._paths.get(stem)
        if paths is None:
            return None
        self._asked.add(stem)
        if len(paths) > 1:
            raise SetupError(f"expected one file {stem}.*, found {' and '.join(paths)}: remove one")
        return paths[0]

    def left(self) -> list[str]:
        """Return the files that nobody asked for."""
        return [
            path
            for stem, paths in sorted(self._paths.items())
            if stem not in self._asked
            for path in paths
        ]
