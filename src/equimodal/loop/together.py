"""Which ranks train a model together: those whose evidence is added up."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from equimodal import ranks
from equimodal.attach.sharding import Sharding
from equimodal.errors import SetupError, StepError

_WRAPPED_LATER: contextvars.ContextVar[bool] = contextvars.ContextVar("wrapped", default=False)


@contextlib.contextmanager
def wrapped_later() -> Iterator[None]:
    """Within it, models that are not wrapped are taken for trained by all ranks.

    For trainers that wrap a model after the balancer has been made of it.
    """
    token = _WRAPPED_LATER.set(True)
    try:
        yield
    finally:
        _WRAPPED_LATER.reset(token)


def together(
    model: nn.Module, sharding: Sharding | None, given: dist.ProcessGroup | None
) -> dist.ProcessGroup | None:
    """Return the ranks that train a model together; None for torch's default group.

    Args:
        model: as the user gave it, wrapped or not.
        sharding: how it is sharded, or None.
        given: what the user said.

    Raises:
        SetupError: there are several ranks, and nothing says that they train this model together.
    """
    if given is not None:
        return given
    if isinstance(model, DistributedDataParallel):
        group: dist.ProcessGroup = model.process_group
        return group
    if sharding is not None:
        return sharding.data_parallel_group()
    if ranks.world_size() == 1 or _WRAPPED_LATER.get() or _replicated(model):
        return None
    raise SetupError(
        f"torch.distributed has {ranks.world_size()} ranks, and this model is not wrapped: "
        "whether they train it together decides what its evidence is. Pass the model as "
        "DistributedDataParallel wraps it; or say process_group=torch.distributed.group.WORLD "
        "where you wrap it later or average its gradients yourself, or process_group=eq.ALONE "
        "where every rank trains a model of its own"
    )


def refuse_join(model: nn.Module) -> None:
    """Refuse a forward within `DistributedDataParallel.join`.

    Raises:
        StepError: it is one.
    """
    if isinstance(model, DistributedDataParallel) and model._join_config.enable:
        raise StepError(
            "within model.join() a rank that has no batches left takes part in the reduction of "
            "gradients, but has no evidence to add, and the others would wait for it: give every "
            "rank the same number of batches, as torch.utils.data.DistributedSampler does"
        )


def _replicated(model: nn.Module) -> bool:
    """Whether `torch.distributed._composable.replicate` was applied to the model."""
    contract = sys.modules.get("torch.distributed._composable.contract")
    return contract is not None and "replicate" in (contract._get_registry(model) or {})
