"""The methods as lines over the epochs: which are set off, and in which colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from equimodal.compare.summary import REFERENCE, Row
from equimodal.report.picture import INK, PALE, SERIES
from equimodal.report.standing import standing
from equimodal.training.result import Result

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A method in the figures over epochs.

    Attributes:
        label: its name.
        results: its runs.
        colour: of its curves; pale for those that are not set off.
        dash: line style.
    """

    label: str
    results: Sequence[Result]
    colour: str
    dash: str = "solid"

    def curve(self, metric: str) -> Curve | None:
        """Return the mean over the runs, shape ``(epochs,)``; None where nothing was logged.

        An epoch that no run has a number for is NaN, a gap. Runs that are shorter than the longest
        count as long as they go.
        """
        series = [[epoch.get(metric, np.nan) for epoch in r.history] for r in self.results]
        longest = max(map(len, series), default=0)
        values = np.array([each + [np.nan] * (longest - len(each)) for each in series], dtype=float)
        values = np.where(np.isfinite(values), values, np.nan)
        known = ~np.isnan(values)
        if not known.any():
            return None
        counts = known.sum(axis=0)
        total = np.where(known, values, 0).sum(axis=0)
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Choose how the rows are drawn: the reference in ink, as many others as there are colours.

    Of more methods those are set off that are better than the reference, then those with the best
    validation accuracy. The rest is pale.
    """
    joint = [row for row in rows if row.entry.method not in ("unimodal", "ensemble")]
    others = [row for row in joint if row.entry.label != REFERENCE]
    best = sorted(others, key=lambda row: (standing(row) == "better", _validation(row)))
    # By the row and not by its label: those of a folder without its queue may be alike.
    set_off = {id(row) for row in best[-len(SERIES) :]}
    shown = [id(row) for row in others if id(row) in set_off]
    looks = dict(zip(shown, SERIES, strict=False))
    return [
        Line(
            row.label,
            list(row.results.values()),
            INK if row.entry.label == REFERENCE else looks.get(id(row), PALE),
        )
        for row in joint
    ]


def coloured(lines: Sequence[Line]) -> list[Line]:
    """Give the colours that are left to lines without one, where only some lines are drawn."""
    free = [colour for colour in SERIES if all(line.colour != colour for line in lines)]
    if sum(line.colour == PALE for line in lines) > len(free):
        return list(lines)
    left = iter(free)
    return [replace(line, colour=next(left)) if line.colour == PALE else line for line in lines]


def _validation(row: Row) -> float:
    return sum(r.val["accuracy"] for r in row.results.values()) / len(row.results)
