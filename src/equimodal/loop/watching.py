"""One hook on the steps of all optimizers, which all balancers share.

A hook of each balancer's own would come off when a dropped one is collected, and that can be in the
middle of a step, while torch goes through these hooks.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from equimodal.system.hooks import eager
from equimodal.update.optimizers import Optimizer

if TYPE_CHECKING:
    from equimodal.loop.notices import Notices

_WATCHING: weakref.WeakSet[Notices] = weakref.WeakSet()
_HANDLES: list[RemovableHandle] = []


def watch(notices: Notices) -> None:
    """Tell these notices of every step of any optimizer, as long as they live."""
    _WATCHING.add(notices)
    if not _HANDLES:
        _HANDLES.append(register_optimizer_step_post_hook(eager(_stepped)))


def unwatch(notices: Notices) -> None:
    """Tell them no more, and take the hook off if they were the last."""
    _WATCHING.discard(notices)
    if not _WATCHING and _HANDLES:
        _HANDLES.pop().remove()


def _stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for notices in list(_WATCHING):
        notices.other_stepped(optimizer)
