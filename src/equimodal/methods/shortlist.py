"""One order of recommendation, from what methods brought wherever it was recorded.

The records are in `recorded.json`, which `python -m benchmarks.record.page` makes of the trainings
of the record (`docs/methods/results.md`). The command, the advice of a diagnosis and the pages all
take their order from here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("recorded.json")


@dataclass(frozen=True)
class Difference:
    """Test accuracy minus that of joint training, paired over seeds.

    Attributes:
        mean: in points of accuracy (per cent).
        low: where its 95% t interval over the seeds begins.
        high: where it ends.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Recommended:
    """A method of the shortlist, with what was measured.

    Attributes:
        name: of the method.
        on: its difference to joint training on each recorded data set.
        step: duration of an optimizer step against a plain one, None where it was not measured.
    """

    name: str
    on: Mapping[str, Difference]
    step: float | None

    @property
    def mean(self) -> float:
        """Points over joint training in the mean of the data sets, by which they are ordered."""
        return sum(each.mean for each in self.on.values()) / len(self.on)

    @property
    def gain(self) -> float:
        """The most that it gained on one of them, in points."""
        return max(each.mean for each in self.on.values())

    @property
    def harm(self) -> float:
        """The most that it lost on one of them, in points; 0 where it lost on none."""
        return max(0.0, -min(each.mean for each in self.on.values()))


def shortlist() -> tuple[Recommended, ...]:
    """Return the methods that are recommended, the first one first; see `listed`."""
    return listed(_recorded())


def listed(records: Mapping[str, Any]) -> tuple[Recommended, ...]:
    """Return the methods that records recommend.

    A method is on the list if it was better than joint training on one recorded data set beyond the
    noise of seeds (its interval leaves out 0), not so much worse on any, and better in the mean of
    all. That mean orders it; a method counts only where it was run on all recorded data sets.

    Args:
        records: as in `recorded.json`: ``sets``, ``differences`` and ``steps``.

    >>> differences = {"one": {"a": [1.0, 0.5, 1.5]}, "other": {"a": [2.0, -0.5, 4.5]}}
    >>> found = listed({"sets": {"a": ""}, "differences": differences, "steps": {}})
    >>> [each.name for each in found]
    ['one']
    """
    found = [
        Recommended(name, on, records["steps"].get(name))
        for name, on in ((name, _on(records, name)) for name in records["differences"])
        if len(on) == len(records["sets"])
        and any(each.low > 0 for each in on.values())
        and not any(each.high < 0 for each in on.values())
    ]
    gained = [each for each in found if each.mean > 0]
    return tuple(sorted(gained, key=lambda each: (-each.mean, each.name)))


def differences(name: str) -> dict[str, Difference]:
    """Return what is recorded of a method, by data set; nothing of one that was not run."""
    return _on(_recorded(), name)


def step(name: str) -> float | None:
    """Return how long a method's step takes against a plain one, None where it is not recorded."""
    found: float | None = _recorded()["steps"].get(name)
    return found


def sets() -> dict[str, str]:
    """Return the recorded data sets, with a line on each."""
    return dict(_recorded()["sets"])


def in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return methods in the order of the shortlist, those that are not on it last, as given.

    >>> in_order(("joint", "multi-loss"))
    ('multi-loss', 'joint')
    """
    places = {each.name: place for place, each in enumerate(shortlist())}
    return tuple(sorted(names, key=lambda name: places.get(name, len(places))))


def _on(records: Mapping[str, Any], name: str) -> dict[str, Difference]:
    on = records["differences"].get(name, {})
    return {data: Difference(*on[data]) for data in records["sets"] if data in on}


@cache
def _recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
