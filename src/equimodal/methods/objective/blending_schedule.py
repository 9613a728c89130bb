"""When Gradient-Blending estimates its weights, and how long it trains copies for that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from equimodal.errors import SetupError
from equimodal.planning import required, share


class BlendingSchedule:
    """Says at the end of which epochs weights are estimated, from copies trained how long.

    Attributes:
        epochs: how many epochs copies are trained for.
    """

    epochs: int | None

    def over(self, epochs: int | None) -> BlendingSchedule:
        """Return the same for a training of so many epochs, None where nobody knows.

        Raises:
            SetupError: it follows the length of training, which is not known.
        """
        return self

    def due(self, epoch: int) -> bool:
        """Whether weights are estimated at the end of this epoch, counted from 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class OnlineBlending(BlendingSchedule):
    """At the end of every super-epoch, from copies trained for another one.

    Args:
        epochs: length of a super-epoch; by default a third of the training, as in BalanceMM.
    """

    epochs: int | None = None

    def __post_init__(self) -> None:
        _refuse_none("OnlineBlending", "epochs", self.epochs)

    def over(self, epochs: int | None) -> OnlineBlending:
        if self.epochs is not None:
            return self
        return replace(self, epochs=share(1, of=3)(required(epochs, "OnlineBlending", "epochs")))

    def due(self, epoch: int) -> bool:
        assert self.epochs is not None
        return (epoch + 1) % self.epochs == 0


@dataclass(frozen=True)
class OfflineBlending(BlendingSchedule):
    """Once, and then kept.

    Args:
        epochs: how many epochs copies are trained for; by default as many as the whole run has, as
            in the paper.
        after: how many epochs are trained with equal weights before.
    """

    epochs: int | None = None
    after: int = 1

    def __post_init__(self) -> None:
        _refuse_none("OfflineBlending", "epochs", self.epochs)
        _refuse_none("OfflineBlending", "after", self.after)

    def over(self, epochs: int | None) -> OfflineBlending:
        if self.epochs is not None:
            return self
        return replace(self, epochs=required(epochs, "OfflineBlending", "epochs"))

    def due(self, epoch: int) -> bool:
        return epoch + 1 == self.after


def _refuse_none(kind: str, what: str, number: int | None) -> None:
    if number is None:
        return  # follows the length of training
    if not isinstance(number, int) or number < 1:
        raise SetupError(f"{kind}({what}): expected a whole number, 1 or more, found {number}")
