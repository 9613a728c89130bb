"""The choice is made: train again, on training and validation data, for as many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equimodal.data import Samples, Splits
from equimodal.errors import SetupError
from equimodal.method import Method
from equimodal.nn import Multimodal
from equimodal.training.fit import fit
from equimodal.training.result import Result
from equimodal.training.settings import Settings

FOLDER = "refit"  # in the folder of the run
HELD_OUT = "held-out data"


def refit(
    splits: Splits[Samples],
    method: Method | Sequence[Method],
    settings: Settings,
    model: Multimodal,
    chosen: Result,
    **how: Any,
) -> Result:
    """Train anew on training and validation data, up to the epoch that was chosen.

    Schedules follow the length of training that was planned, so the last epoch is as far along in
    them as it was when it was chosen. Nothing is chosen by this run, and nothing can be: its
    validation samples are trained on.

    Args:
        splits: as for `fit`.
        method: as it was before `fit`, without what it has learned since.
        settings: as for `fit`.
        model: with its initial values.
        chosen: what `fit` returned.
        how: further arguments of `fit`; `out` must be another folder.

    Returns:
        The test metrics of the new model; `Result.val` is empty.

    Raises:
        SetupError: the method needs validation data for itself.
    """
    refuse_held_out(method)
    how.pop("source", None)  # no other command is to take it for a run with validation data
    return fit(splits.refitted(), method, settings, model, until=chosen.best_epoch, **how)


def refuse_held_out(method: Method | Sequence[Method]) -> None:
    """Refuse a method that needs validation data for itself."""
    for each in [method] if isinstance(method, Method) else method:
        if HELD_OUT in each.needs:
            raise SetupError(
                f"refit: {type(each).__name__} needs validation data of its own, and there would "
                "be none left: leave it out, or take another method"
            )
