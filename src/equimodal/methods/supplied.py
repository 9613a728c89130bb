"""What a run supplies to the constructor of a method, because no command line can hold it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from equimodal.method import Method

TEACHERS = "teachers"


def takes_teachers(kind: type[Method]) -> bool:
    """Whether a method's constructor has an argument `teachers`: modules for the modalities."""
    return TEACHERS in inspect.signature(kind).parameters


def supplied(kind: type[Method]) -> frozenset[str]:
    """Return the arguments that a run supplies: teachers, and what depends on its length.

    >>> import equimodal as eq
    >>> sorted(supplied(eq.G2D)), sorted(supplied(eq.OGM))
    (['gating', 'teachers'], [])
    """
    return frozenset(kind.by_epochs) | ({TEACHERS} if takes_teachers(kind) else frozenset())


@dataclass(frozen=True)
class Recipe:
    """A method that is still to be made, with what only its run has.

    Attributes:
        kind: its class.
        options: its arguments, as far as they are known.
    """

    kind: type[Method]
    options: Mapping[str, Any]

    def make(
        self,
        epochs: int,
        modalities: Sequence[str],
        train_teachers: Callable[[], Mapping[str, nn.Module]],
    ) -> Method:
        """Return the method.

        Args:
            epochs: of the run.
            modalities: of the run.
            train_teachers: is called if the method takes teachers, and if it takes its options.

        Raises:
            SetupError: an option is out of its range.
        """
        by_epochs = {name: value(epochs) for name, value in self.kind.by_epochs.items()}
        options = {**by_epochs, **self.options}
        if not takes_teachers(self.kind):
            return self.kind(**options)
        # Training takes long: what is refused is refused before.
        self.kind(**options, teachers={name: nn.Identity() for name in modalities})
        return self.kind(**options, teachers=train_teachers())
