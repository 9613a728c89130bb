"""A publisher on the loopback: HTTP with ranges and versions, that breaks off when told to."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class Asked:
    """A request as it was answered."""

    path: str
    range: str | None
    status: int
    sent: int = 0


@dataclass
class Fault:
    """What goes wrong with one request.

    Args:
        status: to answer instead of the file.
        after: bytes of the body after which the connection ends, or stalls.
        stalls: it stays open and silent, until the publisher closes.
    """

    status: int | None = None
    after: int | None = None
    stalls: bool = False


@dataclass
class Publisher:
    """What is published, and what was asked for.

    Args:
        files: contents by path, such as "/s1.zip".
        ranges: whether parts are served.
        tags: whether versions are named by an ETag.
        kind: the Content-Type.
    """

    files: dict[str, bytes]
    ranges: bool = True
    tags: bool = True
    kind: str = "application/octet-stream"
    address: str = ""
    asked: list[Asked] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    open: threading.Event = field(default_factory=threading.Event)

    def sent(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(each.sent for each in self.asked)


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # it waits 40 ms before a body that follows its head

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = unquote(self.path.split("?")[0])
            fault = publisher.faults[path].pop(0) if publisher.faults[path] else Fault()
            content = publisher.files.get(path)
            status = fault.status or (200 if content is not None else 404)
            asked = Asked(path, self.headers.get("Range"), status)
            publisher.asked.append(asked)
            if status != 200 or content is None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            start = self.start_of(len(content), tag)
            if start is None:
                asked.status = 416
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content[start:]
            asked.status = 206 if start else 200
            self.send_response(asked.status)
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            if publisher.tags:
                self.send_header("ETag", tag)
            self.send_header("Content-Type", publisher.kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.send(body, fault, asked)

        def start_of(self, size: int, tag: str) -> int | None:
            """Where the answer begins; None if that is behind the end."""
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", tag) == tag
            if not (publisher.ranges and wanted and same):
                return 0
            return int(wanted[1]) if int(wanted[1]) < size else None

        def send(self, body: bytes, fault: Fault, asked: Asked) -> None:
            part = body if fault.after is None else body[: fault.after]
            try:
                self.wfile.write(part)
                self.wfile.flush()
            except OSError:
                return
            asked.sent += len(part)
            if fault.stalls:
                publisher.open.wait(30)
            if fault.after is not None:
                self.close_connection = True

    return Handler


@contextmanager
def publishing(files: dict[str, bytes], **how: Any) -> Iterator[Publisher]:
    """Serve files on the loopback."""
    publisher = Publisher(files, **how)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(publisher))
    server.daemon_threads = True
    publisher.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield publisher
    finally:
        publisher.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
