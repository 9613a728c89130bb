"""What a row costs: one training of it, and all that were spent on it, in plain joint trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equimodal.choosing.candidate import JOINT
from equimodal.training.cost import relative

TERMS = (
    "cost: of one training, in plain joint trainings, counted in operations of forward and "
    "backward passes; spent: the same of all trainings of the row, those that failed not counted."
)


@dataclass(frozen=True)
class Cost:
    """What a row costs.

    Attributes:
        training: one training of it, in plain joint trainings of as many epochs; None where
            operations were not counted.
        trainings: that were spent on it, those that failed not counted.
    """

    training: float | None
    trainings: int

    @property
    def spent(self) -> float | None:
        """All of them, in plain joint trainings."""
        return None if self.training is None else self.trainings * self.training


def costs(operations: Mapping[str, Sequence[float | None]]) -> dict[str, Cost]:
    """Return what each row costs.

    Args:
        operations: of all trainings of each row, joint training among them; None of those of which
            they are not known.
    """
    plain = operations.get(JOINT, [])
    return {label: Cost(relative(each, plain), len(each)) for label, each in operations.items()}


def total(found: Mapping[str, Cost]) -> float | None:
    """Return what all rows together cost, in plain joint trainings; None where one is unknown."""
    spent = [each.spent for each in found.values()]
    known = [each for each in spent if each is not None]
    return sum(known) if known and len(known) == len(spent) else None
