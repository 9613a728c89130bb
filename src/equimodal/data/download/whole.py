"""A published data set, fetched and unpacked into the layout that `equimodal prepare` reads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equimodal.data.download import record
from equimodal.data.download.failure import DamagedError, DownloadError, readable
from equimodal.data.download.fetching import Fetcher
from equimodal.data.download.published import File, Published
from equimodal.data.download.tally import Show, Tally
from equimodal.data.download.unpacking import unpack, unpacked
from equimodal.errors import SetupError

WORK = "downloads"  # the folder for archives, partial files and checksums, beside the data


@dataclass(frozen=True)
class Summary:
    """What a download did.

    Args:
        fetched: names of files that were fetched.
        kept: names of files that were there already, with the right checksum.
        unchecked: names of files without a checksum by their publisher: the SHA-256 of the first
            download is recorded, and checked from then on.
        archives: bytes of archives that may be deleted now.
    """

    fetched: tuple[str, ...]
    kept: tuple[str, ...]
    unchecked: tuple[str, ...]
    archives: int


def download(
    published: Published,
    root: Path,
    *,
    timeout: float = 60.0,
    retries: int = 4,
    show: Show | None = None,
) -> Summary:
    """Fetch a data set, or what of it is missing.

    Interrupted at any moment, the same call goes on: a broken file where it ended.

    Args:
        published: what to fetch.
        root: the folder for it.
        timeout: seconds without a byte after which a connection counts as broken.
        retries: how often in a row to try again when nothing comes.
        show: called with bytes done, bytes in all, and what is at work.

    Raises:
        SetupError: there is not enough room, or another download is at work in the folder.
        DownloadError: a file cannot be fetched, or is not what was expected; what has come is kept.
    """
    import filelock

    work = root / WORK
    work.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(work / "lock", timeout=0):
            return _Download(published, root, Fetcher(work, timeout, retries), show).run()
    except filelock.Timeout as error:
        raise SetupError(f"{root}: another download is at work there: wait for it") from error


class _Download:
    def __init__(
        self, published: Published, root: Path, fetcher: Fetcher, show: Show | None
    ) -> None:
        self.published = published
        self.root = root
        self.fetcher = fetcher
        self.tally = Tally(show)
        self.fetched: list[str] = []
        self.kept: list[str] = []

    def run(self) -> Summary:
        files = self._files()
        for file in files:
            self.tally.expect(file.name, file.size)
        self._refuse_too_much(files)
        for number, file in enumerate(files, start=1):
            self._bring(file, f"{file.name} ({number} of {len(files)})")
        return Summary(
            tuple(self.fetched),
            tuple(self.kept),
            tuple(file.name for file in files if file.checksum is None),
            sum(self._path(f).stat().st_size for f in files if f.takes and self._path(f).exists()),
        )

    def _files(self) -> tuple[File, ...]:
        published = self.published
        files = published.files
        if published.index is not None and published.listed is not None:
            index = published.index
            self.tally.expect(index.name, index.size)
            self._fetch(index, self._path(index), index.name)
            try:
                files += published.listed(self._path(index))
            except DamagedError as error:
                raise self._damaged(index, error) from error
        if published.checksums is not None:
            fetcher = self.fetcher
            known = record.stated(fetcher.session, published.checksums, fetcher.timeout)
            files = record.completed(files, known or {})
        return files

    def _bring(self, file: File, text: str) -> None:
        left = [take for take in file.takes if not unpacked(self._record(take.name), self.root)]
        if file.takes and not left:
            self.kept.append(file.name)
            self.tally.whole(file.name, text)
            return
        self._fetch(file, self._path(file), text)
        for take in left:
            self.tally.whole(file.name, f"unpacking {text}")
            try:
                unpack(self._path(file), self.root, take, self._record(take.name))
            except DamagedError as error:
                raise self._damaged(file, error) from error

    def _fetch(self, file: File, path: Path, text: str) -> None:
        def tell(here: int, total: int) -> None:
            if total:
                self.tally.expect(file.name, total)
            self.tally.at(file.name, here, text)

        (self.fetched if self.fetcher.fetch(file, path, tell) else self.kept).append(file.name)
        self.tally.expect(file.name, path.stat().st_size)
        self.tally.whole(file.name, text)

    def _path(self, file: File) -> Path:
        return self.root / (file.place or f"{WORK}/{file.name}")

    def _record(self, name: str) -> Path:
        return self.root / WORK / f"{name}.unpacked"

    def _damaged(self, file: File, error: DamagedError) -> DownloadError:
        aside = self.fetcher.set_aside(file, self._path(file))
        self.fetcher.forget(file)
        return DownloadError(
            f"{error}: set aside as {aside}; the same command fetches it anew. If that is of no "
            f"use: {self.published.page}"
        )

    def _refuse_too_much(self, files: Sequence[File]) -> None:
        needed = 0
        for file in files:
            left = [take for take in file.takes if not unpacked(self._record(take.name), self.root)]
            if file.takes and not left:
                continue
            needed += file.size if left else 0  # the files are about as large as their archive
            if not self._path(file).exists():
                partial = self.root / WORK / f"{file.name}.partial"
                held = partial.stat().st_size if partial.exists() else 0
                needed += max(file.size - held, 0)
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise SetupError(
                f"{self.root}: {self.published.name} needs {readable(needed)} more, "
                f"{readable(free)} are free: make room, or name another folder"
            )
