"""Settings of all tests."""

import os
import signal
from collections.abc import Iterator

# A shell that runs the tests in the background lets them ignore Ctrl-C, and with them the processes
# that they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Small tensors gain nothing from threads, and two test workers on two cores lose by them: nor shall
# the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("equimodal", deadline=None)  # the first example pays for imports
settings.load_profile("equimodal")


@pytest.fixture(autouse=True)
def hears_interruptions() -> Iterator[None]:
    """Processes of later tests would ignore Ctrl-C if this one did."""
    yield
    left = signal.signal(signal.SIGINT, signal.default_int_handler)
    assert left is signal.default_int_handler, f"SIGINT is left to {left}"
