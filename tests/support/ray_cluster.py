"""A Ray cluster on loopback, of nodes that can be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PATHS = os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parents[1])])
VARIABLES = {
    "PYTHONPATH": PATHS,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a" * 64,
    "RAY_USAGE_STATS_ENABLED": "0",
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """A head and nodes beside it, each with one core, all of them on this machine.

    Whoever makes one has set `VARIABLES`.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.folder = tempfile.mkdtemp(prefix="r")  # sockets have short names only
        self.head = self._start(
            "--head", f"--port={self.port}", "--include-dashboard=false",
            f"--temp-dir={self.folder}",
        )  # fmt: skip
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            time.sleep(0.05)

    def add(self) -> subprocess.Popen[bytes]:
        """Start a node beside the head; it takes seconds to be there."""
        return self._start(f"--address={self.address}")

    def tasks_of(self, node: subprocess.Popen[bytes]) -> list[str]:
        """Return the names of the tasks that a node is at, by the titles of its processes."""
        found = []
        for pid in session_of(node.pid):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0 ").decode()
                if title.startswith("ray::"):
                    found.append(title.removeprefix("ray::"))
        return found

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kill all processes of a node by SIGKILL, as a machine dies."""
        for pid in session_of(node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def end(self, *nodes: subprocess.Popen[bytes]) -> None:
        for node in (*nodes, self.head):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
        shared = ["--num-cpus=1", "--num-gpus=0", "--node-ip-address=127.0.0.1", "--block",
                  "--disable-usage-stats", "--object-store-memory=80000000"]  # fmt: skip
        return subprocess.Popen(
            [command, "start", *options, *shared],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def session_of(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(path.parent.name))
    return found
