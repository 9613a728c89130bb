"""When Gradient-Blending estimates its weights, and how long it trains copies for that."""

from __future__ import annotations

from dataclasses import dataclass

from equimodal.errors import SetupError


class BlendingSchedule:
    """Says at the end of which epochs weights are estimated, from copies trained how long.

    Attributes:
        epochs: how many epochs copies are trained for.
    """

    epochs: int

    def due(self, epoch: int) -> bool:
        """Whether weights are estimated at the end of this epoch, counted from 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class OnlineBlending(BlendingSchedule):
    """At the end of every super-epoch, from copies trained for another one.

    Args:
        epochs: length of a super-epoch.
    """

    epochs: int = 10

    def __post_init__(self) -> None:
        _refuse_none("OnlineBlending", "epochs", self.epochs)

    def due(self, epoch: int) -> bool:
        return (epoch + 1) % self.epochs == 0


@dataclass(frozen=True)
class OfflineBlending(BlendingSchedule):
    """Once, and then kept.

    Args:
        epochs: how many epochs copies are trained for; in the paper, as many as the whole run has.
        after: how many epochs are trained with equal weights before.
    """

    epochs: int = 10
    after: int = 1

    def __post_init__(self) -> None:
        _refuse_none("OfflineBlending", "epochs", self.epochs)
        _refuse_none("OfflineBlending", "after", self.after)

    def due(self, epoch: int) -> bool:
        return epoch + 1 == self.after


def _refuse_none(kind: str, what: str, number: int) -> None:
    if not isinstance(number, int) or number < 1:
        raise SetupError(f"{kind}({what}): expected a whole number, 1 or more, found {number}")
