"""A comparison as a table: for the terminal, for a document, for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table

from equimodal.compare.statistics import Estimate
from equimodal.compare.summary import REFERENCE, Row

GAP = 2  # blanks between columns
SHORT = 7  # letters that a column of a modality takes, where a longer name can be cut


def for_terminal(rows: Sequence[Row], modalities: Sequence[str], width: int = 80) -> list[Table]:
    """Return a table, and further ones for modalities that do not fit beside the rest of it.

    Args:
        rows: of the comparison.
        modalities: one column each.
        width: of the terminal.
    """
    first = _columns(rows)
    names = [_cell(row, name) for name in modalities for row in rows]
    shortened = _shortened(modalities)
    one = {**first, **dict(zip(shortened, _by_column(names, len(rows)), strict=True))}
    if _width(one) <= width:
        return [_table(rows, one)]
    tables = [_table(rows, first)]
    label = {"method": first["method"]}
    part = dict(label)
    for name in modalities:
        cells = [_cell(row, name) for row in rows]
        if len(part) > 1 and _width({**part, name: cells}) > width:
            tables.append(_table(rows, part))
            part = dict(label)
        part[name] = cells
    return [*tables, _table(rows, part)]


def markdown(rows: Sequence[Row], modalities: Sequence[str]) -> str:
    """Return the table for a document."""
    columns = {**_columns(rows), **_sampled(rows)}
    columns |= {name: [_cell(r, name) for r in rows] for name in modalities}
    body = zip(*columns.values(), strict=True)
    lines = [tuple(columns), ("---", *["---:"] * (len(columns) - 1)), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_csv(rows: Sequence[Row], modalities: Sequence[str]) -> str:
    """Return one line for every run that the table rests on, accuracies between 0 and 1."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"test_accuracy_{name}" for name in modalities]
    writer.writerow(
        ["method", "seed", "best_epoch", "val_accuracy", "test_accuracy", "test_macro_f1", *names]
    )
    for row in rows:
        for seed, result in sorted(row.results.items()):
            singles = [
                f"{result.test[f'accuracy/{name}']:.4f}" if name in row.modalities else ""
                for name in modalities
            ]
            numbers = [
                result.val["accuracy"],
                result.test["accuracy"],
                result.test["macro_f1"],
            ]
            writer.writerow(
                [row.label, seed, result.best_epoch, *(f"{n:.4f}" for n in numbers), *singles]
            )
    return file.getvalue()


def _columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the columns of the first table; seeds only where some are not finished."""
    columns = {
        "method": [row.label for row in rows],
        "accuracy": [f"{row.accuracy}" for row in rows],
        "against joint": ["" if row.versus is None else f"{row.versus:+}" for row in rows],
    }
    if any(row.cost for row in rows):
        columns["cost"] = ["" if row.cost is None else f"{row.cost:.1f}" for row in rows]
    if any(row.missing for row in rows):
        columns["seeds"] = [f"{len(r.results)}/{len(r.results) + r.missing}" for r in rows]
    return columns


def _sampled(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the column of intervals for other test samples too, where any row has one."""
    if not any(row.sampled for row in rows):
        return {}
    return {"other samples too": ["" if r.sampled is None else _bounds(r.sampled) for r in rows]}


def _bounds(estimate: Estimate) -> str:
    return f"{estimate:+}".partition(" ")[2]


def _cell(row: Row, modality: str) -> str:
    return f"{100 * row.modalities[modality].mean:.1f}" if modality in row.modalities else ""


def _by_column(cells: Sequence[str], rows: int) -> list[list[str]]:
    return [list(cells[start : start + rows]) for start in range(0, len(cells), rows)]


def _width(columns: dict[str, list[str]]) -> int:
    widest = [max(map(cell_len, [name, *cells])) for name, cells in columns.items()]
    return sum(widest) + GAP * (len(widest) - 1)


def _table(rows: Sequence[Row], columns: dict[str, list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row, cells in zip(rows, zip(*columns.values(), strict=True), strict=True):
        table.add_row(*cells, style="bold" if row.entry.label == REFERENCE else None)
    return table


def _shortened(names: Sequence[str]) -> list[str]:
    """Cut long names, unless that makes two of them alike."""
    short = [name if len(name) <= SHORT else f"{name[: SHORT - 2]}." for name in names]
    return short if len(set(short)) == len(names) else list(names)
