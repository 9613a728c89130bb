"""One thread for small sums."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread(small: bool = True) -> Iterator[None]:
    """Let torch work in one thread within a `with` block, and as before after it.

    On small tensors a second thread wins nothing, and where the cores are busy all threads wait for
    the last one in every operation: twelve times the time was measured.

    Args:
        small: whether the work is small; otherwise nothing changes.
    """
    before = torch.get_num_threads()
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
