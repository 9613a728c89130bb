"""What a user's function says about a model that is to be diagnosed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from equimodal.errors import SetupError, unknown
from equimodal.tasks.function import function_of

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
# What `equimodal choose` takes too, so that one function serves both.
TRAINED = (
    "optimizer", "train", "val", "test", "epochs", "schedule", "schedule_every", "score", "clip",
    "precision",
)  # fmt: skip


def entry_of(path: str) -> dict[str, Any]:
    """Call a function and return what it says, by name.

    Args:
        path: ``package.module:function``; modules of the working directory are found.

    Returns:
        What it says, and under "trained" which entries for `equimodal choose` it has.

    Raises:
        SetupError: there is no such function, or it leaves something out.
    """
    function = function_of(path)
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
    made = {"loader": made.get("val"), "train_loader": made.get("train"), **made}
    made = {name: value for name, value in made.items() if value is not None or name == "head"}
    trained = frozenset(made) & frozenset(TRAINED)
    made = {name: value for name, value in made.items() if name not in TRAINED}
    for name in made:
        if name not in NEEDED and name not in OPTIONAL:
            raise SetupError(f"{path}(): " + unknown("entry", str(name), [*NEEDED, *OPTIONAL]))
    if missing := [f"{name} ({what})" for name, what in NEEDED.items() if name not in made]:
        raise SetupError(f"{path}(): missing {'; '.join(missing)}")
    return {**made, "trained": trained}
