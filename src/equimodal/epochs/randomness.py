"""Random states and orders of data, as they were before a pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from equimodal.system.randomness import restored_states


@contextlib.contextmanager
def restored(model: nn.Module, *loaders: Iterable[Any]) -> Iterator[None]:
    """Put random states back at the end of a `with` block, the loaders' own among them.

    A DataLoader draws from one of the latter when a pass begins, even without shuffling. Some
    models draw from NumPy's, such as Wav2Vec2 its masks. A sampler that is told its epoch is told
    the one before again.

    Args:
        model: whose devices are looked after.
        loaders: which may have generators, and samplers that have some.
    """
    samplers: list[Any] = [getattr(loader, "sampler", None) for loader in loaders]
    generators = [getattr(source, "generator", None) for source in (*loaders, *samplers)]
    epochs = [(s, s.epoch) for s in samplers if hasattr(s, "set_epoch") and hasattr(s, "epoch")]
    own = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with restored_states(*devices):
            yield
    finally:
        for generator, state in own:
            generator.set_state(state)
        for sampler, epoch in epochs:
            sampler.set_epoch(epoch)
