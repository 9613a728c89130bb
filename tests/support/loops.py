"""One run, as a plain torch loop with the balancer: what other trainers must come to as well.

Twenty optimizer steps in two epochs, each of four micro-batches, with clipping, a schedule and the
noise of OGM-GE. On several ranks each takes every other micro-batch, which are as much smaller.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from support.worlds import World, batch, weights

SAMPLES, MICRO, ACCUMULATE, EPOCHS, CLIP = 160, 4, 4, 2, 0.05
STEPS = EPOCHS * SAMPLES // (MICRO * ACCUMULATE)


def ogm_ge() -> eq.Method:
    """In the second epoch only, so that epochs count, and with evidence of past steps."""
    return eq.OGMGE(0.8, smoothing=0.5, window=(1, 1))


def always() -> eq.Method:
    return eq.OGMGE(0.8)


def dataset() -> TensorDataset:
    return TensorDataset(*batch(SAMPLES))


def loader(ranks: int = 1) -> DataLoader[tuple[Tensor, ...]]:
    """Micro-batches of all ranks, in the order of the data set."""
    return DataLoader(dataset(), MICRO // ranks)


def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (STEPS + 1))


def hooks_of(model: nn.Module, optimizer: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    on_model = sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
    optimizer = getattr(optimizer, "optimizer", optimizer)
    return (
        on_model
        + len(optimizer._optimizer_step_pre_hooks)
        + len(optimizer._optimizer_step_post_hooks)
    )


class Loop:
    """The plain loop: model, optimizer, schedule and balancer, made anew for every run."""

    def __init__(self, make: Callable[[], eq.Method] = always, clip: float = CLIP) -> None:
        self.world = World()
        self.clip = clip
        self.ranks = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.model: nn.Module = self.world.model
        if self.ranks > 1:
            self.model = DistributedDataParallel(self.world.model)
        self.optimizer = self.world.optimizer
        self.schedule = schedule(self.optimizer)
        self.balancer = self.world.balance(make(), model=self.model)
        self.step = 0

    def train(self, until: int = STEPS) -> Tensor:
        """Go on from where it is to a step, and return the parameters."""
        micro = list(loader(self.ranks))[self.rank :: self.ranks]
        per_epoch = len(micro) // ACCUMULATE
        while self.step < until:
            start = self.step % per_epoch * ACCUMULATE
            for index, (*inputs, target) in enumerate(micro[start : start + ACCUMULATE]):
                waits = index < ACCUMULATE - 1 and isinstance(self.model, DistributedDataParallel)
                with self.model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                    loss = self.balancer.loss(self.model(*inputs), target)
                    self.balancer.backward(loss / ACCUMULATE)
            self.balancer.modulate()
            if self.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.step += 1
            if self.step % per_epoch == 0:
                self.balancer.end_epoch()
        return weights(self.world.model)


def as_if_launched(rank: int, ranks: int = 2) -> None:
    """Set what torchrun sets: libraries look for it, though the group is there already."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",  # of a group that is never made anew
    }
