"""Other tensors in place of a module's own, for a while."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def substituted(
    modules: Sequence[nn.Module], stand_in: Callable[[Tensor], Tensor], training: bool
) -> Iterator[None]:
    """Let modules hold other tensors, within a `with` block, and leave no trace in them.

    Parameters, buffers and plain attributes are replaced, also in lists and dicts. Whatever the
    modules keep or overwrite meanwhile is dropped: each gets its own attributes back, the very
    dict. Hooks that shard them over ranks do not run: the stand-ins are whole.

    Args:
        modules: each of them once.
        stand_in: called once for each tensor.
        training: the mode of the modules meanwhile.
    """
    known: dict[int, Tensor] = {}

    def other(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in known:
                known[id(value)] = stand_in(value)
            return known[id(value)]
        return mapped(value, other)

    own = [module.__dict__ for module in modules]
    try:
        for module, attributes in zip(modules, own, strict=True):
            replaced = {name: other(value) for name, value in attributes.items()}
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                for key in [k for k, hook in replaced[name].items() if _shards(hook)]:
                    del replaced[name][key]
            replaced["training"] = training
            object.__setattr__(module, "__dict__", replaced)
        yield
    finally:
        for module, attributes in zip(modules, own, strict=True):
            object.__setattr__(module, "__dict__", attributes)


def mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    """Return nested tuples, lists and dicts, made anew of what a function returns for each leaf."""
    if isinstance(tree, Mapping):
        made = {} if type(tree) is dict else copy.copy(tree)
        for key, value in tree.items():
            made[key] = function(value)  # type: ignore[index]
        return made
    if isinstance(tree, list) or (isinstance(tree, tuple) and not hasattr(tree, "_fields")):
        return type(tree)([function(value) for value in tree])
    if isinstance(tree, tuple):
        return type(tree)(*[function(value) for value in tree])
    return tree


def _shards(hook: Any) -> bool:
    module: str = getattr(hook, "__module__", None) or type(hook).__module__
    return module.startswith("torch.distributed")
