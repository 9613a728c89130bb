"""The table of all trainings: one line for each, written as soon as its row is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record.design import Trial
from benchmarks.written import lines_of

from equimodal.system.files import csv_of, write_whole

TABLE = Path(__file__).with_name("trainings.csv")
HEADER = ["set", "row", "encoder", "optimizer", "rate", "options", "seed", "val", "test", "failed"]
Key = tuple[str, str]  # data set and row


@dataclass(frozen=True)
class Trained:
    """One training.

    Attributes:
        trial: with what.
        seed: 0 in the search, others fresh.
        val: accuracy on validation data, a share; 0 where it failed.
        test: on test data.
        failed: why there is none, or nothing.
    """

    trial: Trial
    seed: int
    val: float
    test: float
    failed: str = ""


def best(of: Sequence[Trained]) -> Trained:
    """Return the trial of the search that is best on validation data, the first of several."""
    return max((each for each in of if each.seed == 0), key=lambda each: each.val)


def lacking(of: Sequence[Trained]) -> str:
    """Return why a row has no verdict: all its trials failed, or a fresh seed did; "" if it has."""
    counted = [best(of), *(each for each in of if each.seed)]
    return next((each.failed for each in counted if each.failed), "")


def read(path: Path = TABLE) -> dict[Key, list[Trained]]:
    """Return the trainings of a table by data set and row; none where there is no table.

    Raises:
        ValueError: it is another table.
    """
    found: dict[Key, list[Trained]] = {}
    for line in lines_of(path, HEADER):
        name, row, encoder, optimizer, rate, options, seed, val, test, failed = line
        trial = Trial(encoder, optimizer, float(rate), json.loads(options))
        one = Trained(trial, int(seed), float(val), float(test), failed)
        found.setdefault((name, row), []).append(one)
    return found


def write(found: Mapping[Key, Sequence[Trained]], path: Path = TABLE) -> None:
    """Write a table in the order of its rows; it is there whole or not at all."""
    rows: list[list[object]] = [[*HEADER]]
    for (name, row), trainings in found.items():
        for each in trainings:
            trial = each.trial
            tried = [trial.encoder, trial.optimizer, f"{trial.rate:g}", json.dumps(trial.options)]
            reached = [each.seed, f"{each.val:.4f}", f"{each.test:.4f}", each.failed]
            rows.append([name, row, *tried, *reached])
    write_whole(path, csv_of(rows))
