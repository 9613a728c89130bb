"""Interruptions while processes are started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from equimodal.processes import uninterrupted

BLOCKED = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set()))"


def test_an_interruption_is_heard_when_the_moment_is_over() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_without_one_nothing_happens_and_what_is_started_ignores_them() -> None:
    with uninterrupted():
        started = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert started.stdout == "True\n"
    after = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert after.stdout == "False\n"


def test_a_failure_goes_through() -> None:
    with pytest.raises(ValueError, match="mine"), uninterrupted():
        raise ValueError("mine")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
