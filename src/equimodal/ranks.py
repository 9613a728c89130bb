"""Sums over the ranks of a distributed run; each is the identity in a single process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from equimodal.errors import SetupError


class _Alone:
    """Stands for a process group of this rank alone, which takes no collective to make."""

    def __repr__(self) -> str:
        return "equimodal.ALONE"


ALONE: Any = _Alone()


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """Number of ranks that train together; 1 where nothing is distributed."""
    if group is ALONE or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size(group)


def rank(group: dist.ProcessGroup | None = None) -> int:
    """Number of this rank; 0 where nothing is distributed."""
    return 0 if world_size(group) == 1 else dist.get_rank(group)


def gather(tensor: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Stack the tensors of all ranks along a new first dimension, in the order of the ranks."""
    ranks = world_size(group)
    if ranks == 1:
        return tensor[None]
    gathered = [torch.empty_like(tensor) for _ in range(ranks)]
    dist.all_gather(gathered, tensor.contiguous(), group=group)
    return torch.stack(gathered)


def agreed(seed: int, device: torch.device, group: dist.ProcessGroup | None = None) -> bool:
    """Return True if all ranks have the same seed.

    Raises:
        SetupError: they do not, on every rank.
    """
    if world_size(group) == 1:
        return True
    seeds = gather(torch.tensor([seed], device=device), group).flatten().tolist()
    if len(set(seeds)) > 1:
        raise SetupError(
            f"the ranks have seed={seeds}, but their noise and the methods' own modules must be "
            "the same on every rank: give all of them the same seed"
        )
    return True


def average_(tensors: Sequence[Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Replace each tensor by its mean over the ranks, in one collective per dtype."""
    ranks = world_size(group)
    if ranks == 1 or not tensors:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        dist.all_reduce(flat, group=group)
        flat /= ranks
        means = torch.split(flat, [tensor.numel() for tensor in same])
        for tensor, mean in zip(same, means, strict=True):
            tensor.copy_(mean.view_as(tensor))
