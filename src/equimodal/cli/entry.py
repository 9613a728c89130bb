"""What a user's function says about a model that is to be diagnosed."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError, unknown

NEEDED = {
    "model": "the trained model",
    "encoders": "a dict of the modalities and the modules that encode them",
    "head": "the module that turns the features into logits, or None",
    "loader": "held-out data, batches (input, ..., target)",
}
OPTIONAL = {
    "train_loader": "its training data",
    "alone": "accuracies of the encoders trained alone, or a function of the subject and the "
    "loaders that trains them",
    "forward": "(model, batch) to (logits, target)",
    "criterion": "loss of (logits, target)",
    "outputs": "what it takes: logits, log-probabilities or probabilities",
    "features": "where the head's inputs hold each feature",
    "scores": "how unimodal logits are read",
    "classes": "their names",
    "name": "of the model",
    "data": "what to call the data",
}


def entry_of(path: str) -> dict[str, Any]:
    """Call a function and return what it says, by name.

    Args:
        path: ``package.module:function``; modules of the working directory are found.

    Raises:
        SetupError: there is no such function, or it leaves something out.
    """
    function = _function(path)
    try:
        made = function()
    except OSError as error:
        raise SetupError(f"{path}(): {error}") from error
    if is_dataclass(made) and not isinstance(made, type):
        made = {each.name: getattr(made, each.name) for each in fields(made)}
    if not isinstance(made, Mapping):
        raise SetupError(
            f"{path}(): expected a dict with {', '.join(NEEDED)}, found {type(made).__name__}"
        )
    for name in made:
        if name not in NEEDED and name not in OPTIONAL:
            raise SetupError(f"{path}(): " + unknown("entry", str(name), [*NEEDED, *OPTIONAL]))
    if missing := [f"{name} ({what})" for name, what in NEEDED.items() if name not in made]:
        raise SetupError(f"{path}(): missing {'; '.join(missing)}")
    return dict(made)


def _function(path: str) -> Callable[[], Any]:
    module, _, name = path.partition(":")
    if module.endswith(".py"):
        raise SetupError(
            f"{path}: expected package.module:function, found a file before the colon: say "
            f"{'.'.join(Path(module).with_suffix('').parts)}:{name}"
        )
    here = str(Path.cwd())
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
