"""A function of the user's, by its name."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError


def function_of(path: str, folder: Path | None = None) -> Callable[[], Any]:
    """Return a function that is called without arguments.

    Args:
        path: ``package.module:function``.
        folder: whose modules are found too; the working directory by default.

    Raises:
        SetupError: there is no such function.
    """
    module, _, name = path.partition(":")
    if module.endswith(".py"):
        raise SetupError(
            f"{path}: expected package.module:function, found a file before the colon: say "
            f"{'.'.join(Path(module).with_suffix('').parts)}:{name}"
        )
    here = str(folder or Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise SetupError(f"{path}: importing {module} failed: {error}") from error
        raise SetupError(
            f"{path}: no module {module} in {here} or among what is installed"
        ) from error
    except AttributeError as error:
        raise SetupError(
            f"{path}: module {module} has no {name or 'name after the colon'}"
        ) from error
    if not callable(found):
        raise SetupError(f"{path}: expected a function, found {type(found).__name__}")
    if needed := _needed(found):
        raise SetupError(
            f"{path}: expected a function without arguments, found one of {', '.join(needed)}"
        )
    return found  # type: ignore[no-any-return]


def _needed(function: Any) -> list[str]:
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in rest]
