"""Random states and orders of data, as they were before a pass."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def restored(model: nn.Module, *loaders: Iterable[Any]) -> Iterator[None]:
    """Put random states back at the end of a `with` block: Python's, torch's and the loaders' own.

    A DataLoader draws from one of the latter when a pass begins, even without shuffling. NumPy's
    state is not looked after. A sampler that is told its epoch is told the one before again.

    Args:
        model: whose devices are looked after.
        loaders: which may have generators, and samplers that have some.
    """
    samplers: list[Any] = [getattr(loader, "sampler", None) for loader in loaders]
    generators = [getattr(source, "generator", None) for source in (*loaders, *samplers)]
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
