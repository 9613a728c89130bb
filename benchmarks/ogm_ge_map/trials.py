"""The table of all trials: one line for each, written as soon as it is trained on every seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ogm_ge_map.design import Trial
from benchmarks.written import lines_of

from equimodal.system.files import csv_of, write_whole

TABLE = Path(__file__).with_name("trials.csv")
HEADER = ["cell", "method", "rate", "knob", "validation", "test"]
Key = tuple[str, str, Trial]


@dataclass(frozen=True)
class Tried:
    """What a trial reached.

    Attributes:
        val: accuracy on the validation split for each seed, a share.
        test: on the test split.
    """

    val: tuple[float, ...]
    test: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean validation accuracy, by which a trial is chosen."""
        return sum(self.val) / len(self.val)


def read(path: Path = TABLE) -> dict[Key, Tried]:
    """Return the trials of a table; none where there is no table.

    Raises:
        ValueError: it is another table.
    """
    return {
        (cell, method, Trial(float(rate), float(knob) if knob else None)): Tried(
            _values(val), _values(test)
        )
        for cell, method, rate, knob, val, test in lines_of(path, HEADER)
    }


def write(found: Mapping[Key, Tried], path: Path = TABLE) -> None:
    """Write a table in the order of its trials; it is there whole or not at all."""
    rows: list[list[object]] = [[*HEADER]]
    for (cell, method, trial), tried in found.items():
        knob = "" if trial.knob is None else f"{trial.knob:g}"
        numbers = [" ".join(f"{each:.4f}" for each in of) for of in (tried.val, tried.test)]
        rows.append([cell, method, f"{trial.rate:g}", knob, *numbers])
    write_whole(path, csv_of(rows))


def _values(text: str) -> tuple[float, ...]:
    return tuple(float(each) for each in text.split())
