"""The title of a page about a comparison, and the numbers that a reader looks for first."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from equimodal.compare.summary import REFERENCE, Row
from equimodal.report.picture import Cell, share


def methods_in(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are held against joint training, as the verdict counts them."""
    return [row for row in rows if row.entry.method not in ("unimodal", REFERENCE)]


def title(data: str, rows: Sequence[Row], seeds: int) -> str:
    """Say what was compared, as far as it is finished.

    Args:
        data: what the data is called.
        rows: of the comparison.
        seeds: that were asked for.
    """
    if not rows:
        return f"{data}: a comparison without a result"
    methods = len(methods_in(rows))
    joint = any(row.entry.label == REFERENCE for row in rows)
    what = f"{methods} {'method' if methods == 1 else 'methods'}"
    if joint:
        what = f"{what} against {REFERENCE} training" if methods else f"{REFERENCE} training"
    counts = sorted({len(row.results) for row in rows})
    found = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    of = "" if counts == [seeds] else f" of {seeds}"
    return f"{data}: {what} over {found}{of} {'seed' if seeds == 1 else 'seeds'}"


def cards(rows: Sequence[Row]) -> list[tuple[str, Cell]]:
    """Return numbers with what they are; what is chosen among rows is chosen on validation data.

    Where some rows have fewer seeds than others, the choice is among those that have most: the mean
    of one lucky seed is no choice.
    """
    joint = next((row for row in rows if row.entry.label == REFERENCE), None)
    alone = [row for row in rows if row.entry.method == "unimodal"]
    found = []
    if joint is not None:
        found.append((f"{REFERENCE} training: test accuracy", _tested(joint)))
    if others := methods_in(rows):
        found.append(_best(others, "method"))
    if alone:
        found.append(_best(alone, "single modality"))
    return [*found, *_most_lost(joint, alone)]


def _best(rows: Sequence[Row], what: str) -> tuple[str, Cell]:
    most = max(len(row.results) for row in rows)
    best = max((row for row in rows if len(row.results) == most), key=validated)
    return (
        f"{best.label}, the best {what} on validation ({100 * validated(best):.1f} there): "
        "test accuracy",
        _tested(best),
    )


def _most_lost(joint: Row | None, alone: Sequence[Row]) -> list[tuple[str, Cell]]:
    """Return the modality that joint training reads worst, by and in validation accuracies."""
    lost = []
    for row in alone if joint is not None else ():
        name = row.entry.options["modality"]
        assert joint is not None
        shared = [seed for seed in row.results if seed in joint.results]
        read = [joint.results[seed].val.get(f"accuracy/{name}") for seed in shared]
        known = [each for each in read if each is not None and each == each]
        if shared and len(known) == len(shared):
            own = fmean(row.results[seed].val["accuracy"] for seed in shared)
            lost.append((own - fmean(known), name, fmean(known), own))
    if not lost:
        return []
    gap, name, ours, own = max(lost)
    return [
        (
            f"{name}: read through the joint head, against a model of its own, on validation",
            Cell(f"{-100 * gap:+.1f}", -gap, f"{100 * ours:.1f} against {100 * own:.1f}"),
        )
    ]


def validated(row: Row) -> float:
    """Return the validation accuracy of a row, its mean over the seeds it has."""
    return fmean(result.val["accuracy"] for result in row.results.values())


def _tested(row: Row) -> Cell:
    return share(row.accuracy.mean, (row.accuracy.low, row.accuracy.high))
