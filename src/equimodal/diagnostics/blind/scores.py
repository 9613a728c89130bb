"""What a model is worth on each sample of a batch, and what it answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from equimodal.diagnostics.blind.conditions import Condition


class UnableError(ValueError):
    """A model cannot be asked under a condition: the others go on, and the reason is kept."""


@dataclass(frozen=True)
class Scores:
    """What a model is worth on each sample of a batch, from 0 to 1.

    Attributes:
        values: shapes ``(B,)``, by metric; the first is the one that verdicts rest on.
        answers: what it answers, so that answers that change are counted; None if it has none.
    """

    values: Mapping[str, Tensor]
    answers: Sequence[Hashable] | None = None


class Score(Protocol):
    """Whatever tells how well a model does on samples, more being better.

    A model that gains by being asked under several conditions at once has a method ``together``
    too, from (conditions, what `__call__` gets for each) to scores, or an `UnableError`, for each.
    """

    def __call__(self, samples: list[dict[str, Any]], condition: Condition) -> Tensor | Scores:
        """Return one score per sample, shape ``(B,)``.

        Args:
            samples: with what stands for each modality already in them; one that is removed is no
                entry.
            condition: what was done to them.

        Raises:
            UnableError: the model cannot be asked so.
        """
