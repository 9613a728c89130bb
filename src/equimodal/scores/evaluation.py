"""The head as it is when nothing is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and each of its modules back to its own mode after."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
