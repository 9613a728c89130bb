"""What of a method is searched, declared beside it: one distribution for each argument.

A distribution turns a number between 0 and 1 into a value; which numbers are tried is no matter of
its own. Pure Python, since methods are part of the core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Space(Protocol):
    """Values of an argument."""

    def at(self, share: float, modalities: Sequence[str]) -> Any:
        """Return the value at a share from 0 to below 1 of the space."""


Search = Mapping[str, Space]


@dataclass(frozen=True)
class Linear:
    """Numbers from one to another, evenly.

    >>> Linear(1.0, 3.0).at(0.5, ())
    2.0
    """

    low: float
    high: float

    def at(self, share: float, modalities: Sequence[str]) -> float:
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True)
class Log:
    """Numbers from one above 0 to another, evenly in their logarithm.

    >>> round(Log(0.01, 1.0).at(0.5, ()), 6)
    0.1
    """

    low: float
    high: float

    def at(self, share: float, modalities: Sequence[str]) -> float:
        return math.exp(math.log(self.low) + share * math.log(self.high / self.low))


@dataclass(frozen=True)
class Choice:
    """Some values.

    >>> Choice("a", "b", "c").at(0.4, ())
    'b'
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def at(self, share: float, modalities: Sequence[str]) -> Any:
        return self.values[int(share * len(self.values))]


@dataclass(frozen=True)
class EachModality:
    """Some values for one modality at a time: ``{"audio": 0.1}``.

    >>> EachModality(0.1, 0.3).at(0.6, ("audio", "visual"))
    {'visual': 0.1}
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def at(self, share: float, modalities: Sequence[str]) -> dict[str, Any]:
        place = int(share * len(self.values) * len(modalities))
        return {modalities[place // len(self.values)]: self.values[place % len(self.values)]}


def searched(**spaces: Space) -> Search:
    """Return the spaces of a method's arguments, as it declares them.

    >>> list(searched(alpha=Log(0.05, 1.0)))
    ['alpha']
    """
    return spaces
