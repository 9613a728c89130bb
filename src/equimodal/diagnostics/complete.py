"""Batches in which every sample has every modality, as a diagnosis needs them.

What a modality contributes is read over the same samples for every subset. One that lacks a
modality has no other features to give in exchange, and a fill in place of what is not there tells
nothing.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from equimodal.errors import SetupError
from equimodal.step import Step

REMEDY = (
    "a diagnosis reads every modality of every sample. Give loaders of the samples that have all, "
    "and leave out the others; or leave out the modality"
)


def refuse_silent(names: Sequence[str], ran: Container[str]) -> None:
    """Refuse a batch for which the encoders of some modalities did not run, while others did.

    Raises:
        SetupError: it is one.
    """
    silent = [name for name in names if name not in ran]
    if silent and len(silent) < len(names):  # none runs where features were computed before
        raise SetupError(
            f"{', '.join(silent)}: missing from a batch, whose encoder did not run: {REMEDY}"
        )


def refuse_missing(step: Step) -> None:
    """Refuse a batch of which some samples lack a modality, as far as the forward tells.

    Raises:
        SetupError: it is one.
    """
    refuse_silent(step.names, step.encoders)
    for name, mask in step.present.items():
        missing = step.size - int(mask.sum())
        if missing:
            raise SetupError(
                f"{name}: missing from {missing} of the {step.size} samples of a batch: {REMEDY}"
            )
