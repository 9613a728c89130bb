"""Starting processes that an interruption is not for."""

from __future__ import annotations

import signal
import subprocess
import sys

from equimodal.processes import uninterrupted

IGNORED = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"


def test_what_is_started_meanwhile_ignores_interruptions_and_we_do_not() -> None:
    with uninterrupted():
        started = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, text=True)
    assert started.stdout == "True\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
