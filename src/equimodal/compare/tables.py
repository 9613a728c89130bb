"""A comparison as a table: for the terminal, for a document, for other programs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from equimodal.compare.summary import REFERENCE, Row


def for_terminal(rows: Sequence[Row], modalities: Sequence[str]) -> Table:
    """Return a table that fits into 80 columns for two modalities."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("against joint", justify="right", no_wrap=True)
    for name in modalities:
        table.add_column(_short(name), justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row.entry.label == REFERENCE else None
        table.add_row(*cells(row, modalities), style=style)
    return table


def cells(row: Row, modalities: Sequence[str]) -> list[str]:
    """Return what a row says: label, accuracy, difference, and the modalities' accuracies."""
    singles = [
        f"{100 * row.modalities[name].mean:.1f}" if name in row.modalities else ""
        for name in modalities
    ]
    return [row.label, f"{row.accuracy}", "" if row.versus is None else f"{row.versus:+}", *singles]


def markdown(rows: Sequence[Row], modalities: Sequence[str]) -> str:
    """Return the table for a document."""
    head = ["method", "accuracy", "against joint", *modalities]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(cells(row, modalities) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_csv(path: Path, rows: Sequence[Row], modalities: Sequence[str]) -> None:
    """Write one line for every run that the table rests on."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = [f"test_accuracy_{name}" for name in modalities]
        writer.writerow(
            [
                "method", "seed", "best_epoch", "val_accuracy", "test_accuracy", "test_macro_f1",
                *names,
            ]
        )  # fmt: skip
        for row in rows:
            for seed, result in sorted(row.results.items()):
                singles = [
                    f"{result.test[f'accuracy/{name}']:.4f}" if name in row.modalities else ""
                    for name in modalities
                ]
                writer.writerow(
                    [
                        row.label,
                        seed,
                        result.best_epoch,
                        f"{result.val['accuracy']:.4f}",
                        f"{result.test['accuracy']:.4f}",
                        f"{result.test['macro_f1']:.4f}",
                        *singles,
                    ]
                )


def _short(name: str) -> str:
    return name if len(name) <= 7 else f"{name[:5]}."
