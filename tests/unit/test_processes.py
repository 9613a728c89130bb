"""Starting processes that an interruption is not for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from equimodal.system.processes import uninterrupted

BLOCKED = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set()))"


def blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def as_before() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler and not blocked()


def test_an_interruption_is_heard_when_the_moment_is_over() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
    assert as_before()


def test_one_that_a_thread_of_a_library_takes_is_heard_too() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()  # does not block the signal, and so the system hands it to this one
    reached = False
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # for the thread to take it
            reached = True
    finally:
        over.set()
        thread.join()
    assert reached
    assert as_before()


def test_what_is_started_meanwhile_does_not_hear_them_and_what_is_started_later_does() -> None:
    with uninterrupted():
        during = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    after = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert (during.stdout, after.stdout) == ("True\n", "False\n")


FIRST = """
from multiprocessing import get_context
from tests.unit.test_processes import blocked
from equimodal.system.processes import uninterrupted

if __name__ == "__main__":
    pool = get_context("spawn").Pool
    with uninterrupted():
        workers = pool(1)
    with workers:
        print(workers.apply(blocked))
"""


def test_the_first_process_of_all_does_not_hear_them_either() -> None:
    """With it `multiprocessing` starts a tracker, and unblocks the signal on the way."""
    asked = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
    assert (asked.stdout, asked.stderr) == ("True\n", "")


def test_a_failure_goes_through() -> None:
    with pytest.raises(ValueError, match="mine"), uninterrupted():
        raise ValueError("mine")
    assert as_before()


def test_in_another_thread_what_is_started_does_not_hear_them() -> None:
    said: list[str] = []

    def start() -> None:
        with uninterrupted():
            asked = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
        said.append(asked.stdout)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert said == ["True\n"]
    assert as_before()
