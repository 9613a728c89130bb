"""How the methods of a comparison stand: the table, and the figure of differences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from equimodal.compare.statistics import Estimate
from equimodal.compare.summary import REFERENCE, Row
from equimodal.compare.verdict import ENOUGH
from equimodal.report.cards import methods_in
from equimodal.report.picture import (
    GRID,
    INK,
    QUIET,
    SERIES,
    Cell,
    Key,
    Panel,
    Picture,
    Table,
    number,
    share,
    short,
)

BETTER, WORSE = SERIES[2], SERIES[3]
SAMPLED = "other samples too"  # as `compare` calls it
STANDINGS = {"better": BETTER, "worse": WORSE}


def standing(row: Row) -> str:
    """Say what the paired difference of a row allows to say, in the terms of the verdict."""
    if row.entry.label == REFERENCE:
        return "reference"
    if row.entry.method == "unimodal":
        return "one modality"
    pairs = len(row.versus.values) if row.versus is not None else 0
    if row.versus is None or pairs < ENOUGH:
        return f"too few seeds ({pairs})"
    if row.versus.low > 0:
        return "better"
    return "worse" if row.versus.high < 0 else "not told apart"


def results_table(rows: Sequence[Row], modalities: Sequence[str]) -> Table:
    """Return the rows of a comparison with their intervals; seeds only where some are missing."""
    missing = any(row.missing for row in rows)
    sampled = any(row.sampled for row in rows)
    costs = any(row.cost for row in rows)
    columns = ["method", "accuracy", f"against {REFERENCE}", *([SAMPLED] if sampled else [])]
    columns += ["standing", "macro-F1", *modalities]
    columns += [*(["seeds"] if missing else []), "epoch", *(["cost"] if costs else []), "seconds"]
    return Table(
        "Test results in per cent: mean over the seeds, with 95% t interval",
        columns,
        [_row(row, modalities, missing, sampled, costs) for row in rows],
        frozenset(n for n, row in enumerate(rows) if row.entry.label == REFERENCE),
    )


def _row(
    row: Row, modalities: Sequence[str], missing: bool, sampled: bool, costs: bool
) -> list[Cell]:
    many = len(row.results)
    return [
        Cell(row.label, row.label),
        _estimated(row.accuracy),
        Cell("") if row.versus is None else _estimated(row.versus, "+"),
        *([_bounds(row)] if sampled else []),
        Cell(standing(row), standing(row)),
        _estimated(row.macro_f1),
        *(
            _estimated(row.modalities[name]) if name in row.modalities else Cell("")
            for name in modalities
        ),
        *([Cell(f"{many} of {many + row.missing}", float(many))] if missing else []),
        number(fmean(result.best_epoch + 1 for result in row.results.values()), ".0f"),
        *([number(row.cost, ".1f")] if costs else []),
        number(fmean(result.seconds for result in row.results.values()), ".0f"),
    ]


def differences(rows: Sequence[Row]) -> Picture | None:
    """Draw the paired difference of every method to joint training with its interval."""
    known = [row for row in rows if row.versus is not None and np.isfinite(row.versus.mean)]
    if not known:
        return None
    sampled = any(row.sampled for row in known)
    ordered = sorted(known, key=lambda row: row.versus.mean if row.versus else 0.0)

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=0.8)
        for position, row in enumerate(ordered):
            assert row.versus is not None
            colour = STANDINGS.get(standing(row), QUIET)
            low, high = 100 * row.versus.low, 100 * row.versus.high
            axes.plot([low, high], [position, position], color=colour, linewidth=1.6)
            filled = colour if standing(row) in STANDINGS else "#ffffff"
            axes.plot(
                100 * row.versus.mean, position, "o", color=colour, mfc=filled, markersize=4.5
            )
        axes.set_yticks(range(len(ordered)), [short(row.label) for row in ordered])
        axes.set_ylim(-0.7, len(ordered) - 0.3)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(color=GRID, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(f"test accuracy against {REFERENCE} (points)")

    said = [f"{row.label} {row.versus:+}" for row in reversed(ordered) if row.versus is not None]
    return Picture(
        "differences",
        f"Difference to {REFERENCE} training",
        "Points of test accuracy, mean of the paired differences and 95% t interval over seeds. "
        f"Filled: at least {ENOUGH} pairs, and the interval leaves out 0.",
        f"Paired differences to {REFERENCE} training, the highest first: {'; '.join(said)}.",
        [Panel(f"Against {REFERENCE}", draw, 0.7 + 0.175 * len(ordered), wide=True)],
        _keys(known),
        Table(
            "Paired differences in points",
            ["method", "difference", *([SAMPLED] if sampled else []), "pairs"],
            [
                [
                    Cell(row.label, row.label),
                    _estimated(row.versus, "+"),
                    *([_bounds(row)] if sampled else []),
                    number(float(len(row.versus.values)), ".0f"),
                ]
                for row in reversed(ordered)
                if row.versus is not None
            ],
        ),
    )


def _keys(rows: Sequence[Row]) -> list[Key]:
    found = [Key(name, colour) for name, colour in STANDINGS.items() if name in map(standing, rows)]
    return [*found, Key("not told apart, or no method", QUIET)] if found else []


def by_chance(rows: Sequence[Row]) -> str:
    """Say how many of the methods would stand apart from joint training by luck."""
    methods = methods_in(rows)
    judged = sum(map(_judged, methods))
    if judged < 2:
        return ""
    expected = 0.05 * judged
    about = f"about {expected:.0f}" if expected >= 1.5 else "fewer than one"
    few = f" of {len(methods)}" if judged < len(methods) else ""
    return (
        f"{judged}{few} methods are held against {REFERENCE} training, each by itself. If none of "
        f"them differed from it, {about} would still have a difference of one sign with every seed."
    )


def _judged(row: Row) -> bool:
    return standing(row) in ("better", "worse", "not told apart")


def _estimated(estimate: Estimate, sign: str = "") -> Cell:
    return share(estimate.mean, (estimate.low, estimate.high), sign)


def _bounds(row: Row) -> Cell:
    """Return the interval for other test samples too; the difference itself stands beside it."""
    if row.sampled is None:
        return Cell("")
    found = _estimated(row.sampled, "+")
    return Cell("", found.value, found.aside)
