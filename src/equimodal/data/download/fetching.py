"""Files of a publisher, each checked before it is in its place."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from equimodal.data.download.failure import DownloadError, readable
from equimodal.data.download.published import File
from equimodal.data.download.resuming import Bytes, Resumable
from equimodal.system.extras import require


class Fetcher:
    """Fetches files into a folder, by pooch.

    Args:
        work: the folder for what is not whole yet, for archives, and for checksums that the
            publisher does not state: SHA-256 of the first download, in ``NAME.sha256``.
        timeout: seconds without a byte after which a connection counts as broken.
        retries: how often in a row to try again when nothing comes.
    """

    def __init__(self, work: Path, timeout: float = 60.0, retries: int = 4) -> None:
        require("data", "pooch")
        import requests

        self.work = work
        self.timeout = timeout
        self.retries = retries
        self.session = requests.Session()

    def fetch(self, file: File, path: Path, show: Bytes) -> bool:
        """Bring a file to its place, and return whether it had to be fetched.

        Args:
            file: which.
            path: its place.
            show: called with bytes here and bytes in all.

        Raises:
            DownloadError: it could not be fetched, is not what was expected, or another file is in
                its place. What has come so far is kept unless it is wrong.
        """
        import pooch
        import requests

        checksum = file.checksum or self.recorded(file)
        if path.exists():
            _refuse_another(file, path, checksum)
            return False
        partial = self.work / f"{file.name}.partial"

        def check(whole: Path) -> None:
            if checksum is not None:
                self._refuse_wrong(file, whole, checksum)

        downloader = Resumable(
            partial, check, checksum is not None, self.session, self.timeout, show
        )
        store = pooch.Pooch(
            path=self.work,
            base_url="",
            registry={file.name: checksum},
            urls={file.name: file.address},
            retry_if_failed=self.retries,
        )
        try:
            with _quiet(pooch.get_logger()):
                fetched = Path(store.fetch(file.name, downloader=downloader))
        except requests.RequestException as error:
            total = downloader.expected()
            here = readable(downloader.held()) + (f" of {readable(total)}" if total else "")
            raise DownloadError(
                f"{file.address}: {_reason(error)}; {here} are here, and the same command goes on"
            ) from error
        if checksum is None:
            self._record(file, fetched)
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(path)
        return True

    def recorded(self, file: File) -> str | None:
        """Return the checksum of the first download, if there was one."""
        try:
            words = self._record_of(file).read_text().split()
        except FileNotFoundError:
            return None
        return f"sha256:{words[0]}" if words else None

    def set_aside(self, file: File, path: Path) -> Path:
        """Move a wrong file out of the way; return where it is now."""
        aside = self.work / f"{file.name}.wrong"
        path.replace(aside)
        return aside

    def forget(self, file: File) -> None:
        """Forget the checksum of the first download, which was no good."""
        self._record_of(file).unlink(missing_ok=True)

    def _record(self, file: File, path: Path) -> None:
        import pooch

        digest = pooch.file_hash(str(path), alg="sha256")
        record = self._record_of(file)
        partial = record.with_name(f"{record.name}.partial")
        partial.write_text(f"{digest}  {Path(file.name).name}\n")  # as sha256sum reads it
        partial.replace(record)

    def _record_of(self, file: File) -> Path:
        return self.work / f"{file.name}.sha256"

    def _refuse_wrong(self, file: File, whole: Path, checksum: str) -> None:
        found = _hash(whole, checksum)
        if found == checksum.lower():
            return
        size = readable(whole.stat().st_size)
        aside = self.set_aside(file, whole)
        what = (
            "the same command fetches it anew; found again, it means that the publisher has "
            "changed the file"
        )
        if file.checksum is None:
            what = (
                "it differs from the first download; if the publisher has a new version, delete "
                f"{self._record_of(file)}, and the same command takes it"
            )
        raise DownloadError(
            f"{file.address}: expected {checksum}, found {found} ({size}), set aside as {aside}: "
            f"{what}"
        )


def _refuse_another(file: File, path: Path, checksum: str | None) -> None:
    if checksum is None:
        return
    found = _hash(path, checksum)
    if found != checksum.lower():
        raise DownloadError(
            f"{path} is there, but is not {file.address}: expected {checksum}, found {found}: move "
            "it away, and the same command fetches it"
        )


def _hash(path: Path, like: str) -> str:
    """Return the checksum of a file by the algorithm of another, written like that."""
    import pooch

    algorithm = like.partition(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _reason(error: BaseException) -> str:
    """Say in a few words how a connection failed."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    text = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "the server has stopped sending"
    if "Failed to resolve" in text or "Name or service" in text:
        return "no such host, or no network"
    if "refused" in text:
        return "the server does not answer"
    return "the connection broke"


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep pooch from telling what the progress tells."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
