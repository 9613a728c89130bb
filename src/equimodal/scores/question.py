"""A call of a head, as it can be made again on other tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from equimodal.attach.features import Inputs, Layout, Path


@dataclass(frozen=True)
class Question:
    """What is needed to ask a head what it is.

    Attributes:
        name: of the head's class, for messages.
        modules: those that run between features and logits.
        layout: where its inputs hold the features.
        inputs: what it was given.
        outputs: where among the tensors that it returns the logits are, by whether it trains.
        run: runs it on inputs, and returns all that it returns.
    """

    name: str
    modules: tuple[nn.Module, ...]
    layout: Layout
    inputs: Inputs
    outputs: Mapping[bool, Path]
    run: Callable[[Inputs], Any]
