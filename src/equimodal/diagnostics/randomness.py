"""Passes over data after which random states and modes are as before, however they end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from equimodal.diagnostics.subject import Subject
from equimodal.epochs.randomness import restored
from equimodal.step import Step


@contextlib.contextmanager
def observing(
    subject: Subject, loader: Iterable[Any], *, graph: bool = False
) -> Iterator[Iterator[Step]]:
    """Give the steps of a subject within a `with` block, at whose end all is as before.

    An exception in the block would otherwise keep the pass, and the model in evaluation mode, for
    as long as anybody holds the traceback.
    """
    with restored(subject.model, loader), closed(subject.steps(loader, graph=graph)) as steps:
        yield steps


@contextlib.contextmanager
def closed(steps: Iterator[Step]) -> Iterator[Iterator[Step]]:
    """Close a generator of steps at the end of a `with` block, which gives the modes back."""
    try:
        yield steps
    finally:
        steps.close()  # type: ignore[attr-defined]
