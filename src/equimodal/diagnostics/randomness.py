"""Passes over data after which random states and modes are as before, however they end."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from equimodal.diagnostics.subject import Subject
from equimodal.step import Step


@contextlib.contextmanager
def restored(model: nn.Module, *loaders: Iterable[Any]) -> Iterator[None]:
    """Put random states back at the end of a `with` block: Python's, torch's and the loaders' own.

    A DataLoader draws from one of the latter when a pass begins, even without shuffling. NumPy's
    state is not looked after. A sampler that is told its epoch is told the one before again.

    Args:
        model: whose devices are looked after.
        loaders: which may have generators.
    """
    generators = [getattr(loader, "generator", None) for loader in loaders]
    samplers: list[Any] = [getattr(loader, "sampler", None) for loader in loaders]
    epochs = [(s, s.epoch) for s in samplers if hasattr(s, "set_epoch") and hasattr(s, "epoch")]
    own = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    python = random.getstate()
    cuda = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(sorted(cuda)):
            yield
    finally:
        random.setstate(python)
        for generator, state in own:
            generator.set_state(state)
        for sampler, epoch in epochs:
            sampler.set_epoch(epoch)


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
