"""Labels that make a language model predict the placeholders of its own images and sounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from equimodal.criterion import TokenLoss
from equimodal.system.late import Late

KINDS = ("image", "video", "audio")
LOOKS = 10  # losses that are looked at: what a pipeline does to labels shows early


class Placeholders:
    """Looks for placeholders among the labels that count, in the first losses.

    Models of transformers say in their configuration which id stands for image or audio features.
    Their own loss, and `TokenLoss`, count such positions as any other unless the labels mask them.

    Args:
        model: without wrapper.
        criterion: the user's.
        say: warns once.
    """

    def __init__(self, model: nn.Module, criterion: Any, say: Callable[[str], None]) -> None:
        self._ids = _placeholders(model) if isinstance(criterion, TokenLoss) else {}
        self._criterion, self._say = criterion, say
        self._left = LOOKS if self._ids else 0
        self._late = Late(self._found)

    def look(self, target: Any) -> None:
        """Look at the labels of a batch, as `TokenLoss` takes them."""
        if not self._left or torch.compiler.is_compiling():
            return
        self._left -= 1
        self._late.settle()
        labels = self._criterion.labels(target)
        of = [(labels == number).sum() for number in self._ids.values()]
        self._late.note(torch.stack([*of, self._criterion.counted(target).sum()]))

    def _found(self, numbers: list[float]) -> None:
        *of, counted = numbers
        for (kind, number), count in zip(self._ids.items(), of, strict=True):
            if count and self._criterion.ignore_index != number:
                self._left = 0
                self._say(
                    f"{count:.0f} of {counted:.0f} labels that count are placeholders of {kind} "
                    f"features (id {number}): the model learns to predict them, and evidence is "
                    f"taken from them. Mask them, labels[labels == {number}] = "
                    f"{self._criterion.ignore_index}"
                )


def _placeholders(model: nn.Module) -> dict[str, int]:
    """Return the ids of placeholders by what they stand for, from a model's configuration."""
    config = getattr(model, "config", None)
    found = {}
    for kind in KINDS:
        for end in ("token_id", "token_index"):
            number = getattr(config, f"{kind}_{end}", None)
            if isinstance(number, int):
                found[kind] = number
    return found
