"""One file over HTTP, going on where a broken download ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equimodal.data.download.failure import DownloadError, is_full, readable

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 15
PASSING = (408, 425, 429)  # refusals that may end by themselves, as those of 500 and above do

Bytes = Callable[[int, int], None]  # bytes here, bytes in all (0 if not said)


class Resumable:
    """Fetches to ``NAME.partial``, and goes on with what is there.

    What the server called the version that was begun (its ETag or date) is noted beside the partial
    file and sent along (`If-Range`): if the file has changed since, or the server knows no ranges,
    it sends the whole, and fetching starts over. An instance is a downloader of pooch.

    Args:
        partial: where bytes are collected.
        check: called with the whole partial file before it is handed over; raises if it is wrong.
        checked: whether `check` can tell a wrong file. If not, nothing is resumed without a name
            for its version.
        session: that asks.
        timeout: seconds without an answer or a byte after which the connection counts as broken.
        show: called with bytes here and bytes in all.
    """

    def __init__(
        self,
        partial: Path,
        check: Callable[[Path], None],
        checked: bool,
        session: requests.Session,
        timeout: float,
        show: Bytes,
    ) -> None:
        self.partial = partial
        self.notes = partial.with_name(f"{partial.name}.json")
        self.check = check
        self.checked = checked
        self.session = session
        self.timeout = timeout
        self.show = show

    def __call__(self, address: str, output: str | Path, pooch: Any = None) -> None:
        """Fetch a file.

        Raises:
            requests.RequestException: the connection broke before anything new came: pooch waits
                and tries again.
            DownloadError: trying again is of no use.
        """
        import requests

        while True:
            before = self.held()
            try:
                self._go_on(address)
                break
            except requests.RequestException:
                if self.held() <= before:
                    raise
        self.check(self.partial)
        self.partial.replace(output)
        self.notes.unlink(missing_ok=True)

    def held(self) -> int:
        """Return how many bytes are here."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def expected(self) -> int:
        """Return how many bytes the server said that there are; 0 if it has not."""
        return int(self._noted().get("length") or 0)

    def _go_on(self, address: str) -> None:
        noted = self._noted()
        held = self.held() if noted.get("address") == address else 0
        version = noted.get("version")
        if not (version or self.checked):
            held = 0
        if held and held == noted.get("length"):
            return  # killed after the last byte
        headers = {"Accept-Encoding": "identity", "User-Agent": "equimodal"}
        if held:
            headers["Range"] = f"bytes={held}-"
            if version:
                headers["If-Range"] = version
        another = False
        with self.session.get(
            address, headers=headers, stream=True, timeout=self.timeout
        ) as response:
            if held and not self._continues(response, held, noted):
                another = response.status_code in (206, 416)
                held = 0
            if not another:
                _refuse(address, response)
                if not held:
                    self._note(address, response)
                self._collect(response, held)
        if another:  # another part than asked for, or none: the whole
            self.notes.unlink(missing_ok=True)
            self._go_on(address)

    def _continues(self, response: requests.Response, held: int, noted: dict[str, Any]) -> bool:
        if response.status_code != 206:
            return False
        said = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if said is None or int(said[1]) != held:
            return False
        return said[2] == "*" or not noted.get("length") or int(said[2]) == noted["length"]

    def _collect(self, response: requests.Response, held: int) -> None:
        import requests

        total = self.expected()
        try:
            with self.partial.open("ab" if held else "wb") as file:
                self.show(held, total)
                for chunk in _chunks(response):
                    file.write(chunk)
                    held += len(chunk)
                    self.show(held, total)
        except OSError as error:
            if is_full(error):
                raise DownloadError(
                    f"{self.partial}: the disk is full after {readable(held)}: make room, and the "
                    "same command goes on"
                ) from error
            raise
        if total and held < total:
            raise requests.ConnectionError(f"ended after {held} of {total} bytes")
        if total and held > total:
            self.partial.unlink()
            raise requests.ConnectionError(f"sent {held} bytes, {total} were announced")

    def _noted(self) -> dict[str, Any]:
        try:
            noted = json.loads(self.notes.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def _note(self, address: str, response: requests.Response) -> None:
        tag = response.headers.get("ETag", "")
        # A weak tag names what means the same, not what has the same bytes.
        version = response.headers.get("Last-Modified") if tag[:2] in ("", "W/") else tag
        length = response.headers.get("Content-Length", "")
        noted = {
            "address": address,
            "version": version,
            "length": int(length) if length.isdigit() else None,
        }
        # First: what is left of another version must not be taken for the start of this one.
        self.partial.write_bytes(b"")
        self.notes.write_text(json.dumps(noted))


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield what comes, undecoded: a .gz stays one even if the server calls it an encoding."""
    import requests
    import urllib3

    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


def _refuse(address: str, response: requests.Response) -> None:
    status = response.status_code
    if 400 <= status < 500 and status not in PASSING:
        raise DownloadError(f"{address}: the server refuses, {status} {response.reason}")
    response.raise_for_status()
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadError(
            f"{address}: expected the file, the server sent a page for people instead"
        )
