"""Scores by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from equimodal.attach.features import Features
from equimodal.errors import MatchError
from equimodal.scores.base import Scores
from equimodal.step import Step


class Function(Scores):
    """The user's own function, from the features of all modalities to the unimodal logits of each.

    Args:
        function: takes a dict of features, returns a dict of logits that the criterion accepts.
        temperature: see `Scores`.
    """

    cost = "the user's function"

    def __init__(
        self, function: Callable[[Features], Mapping[str, Tensor]], temperature: float = 1.0
    ) -> None:
        super().__init__(temperature)
        self.function = function

    def logits(self, step: Step) -> dict[str, Tensor]:
        logits = dict(self.function(step.features))
        if set(logits) != set(step.names):
            raise MatchError(
                f"scores: expected logits of {', '.join(step.names)} from the function, "
                f"found {', '.join(map(str, logits)) or 'none'}"
            )
        taken = step.criterion.outputs  # the function gives what the criterion takes
        return {name: taken.logits(each) for name, each in logits.items()}
