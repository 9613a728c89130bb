"""Our numbers beside the published ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from rich.table import Table

from equimodal.compare.statistics import Estimate
from equimodal.compare.summary import Row as Outcome
from equimodal.reproducing.paper import Row

TERMS = (
    "Test accuracy in %: mean [95% t interval over seeds]; published is the article's number where "
    "it could be traced. The file has the paired difference to training without a method too, and "
    "each modality read through the joint head."
)

EXPLAINED = (
    "Test accuracy in per cent: mean over seeds with 95% t interval, and the paired difference to "
    "`joint`, training without a method, on the same data and model. Columns of modalities: read "
    "through the joint head, or models of their own. `published` is the article's number where it "
    "could be traced."
)


def for_terminal(
    rows: Sequence[Row], outcomes: Mapping[str, Outcome], seeds: Sequence[int]
) -> Table:
    """Return the table for 80 columns: ours and the published number."""
    columns = _columns(rows, outcomes, seeds)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    names = ["row", "accuracy", *(["seeds"] if any(columns["seeds"]) else []), "published"]
    for name in names:
        table.add_column(name, justify="left" if name == "row" else "right", no_wrap=True)
    for cells in zip(*(columns[name] for name in names), strict=True):
        table.add_row(*cells)
    return table


def markdown(rows: Sequence[Row], outcomes: Mapping[str, Outcome], seeds: Sequence[int]) -> str:
    """Return the table for a document, with the sources of published numbers below it."""
    columns = _columns(rows, outcomes, seeds)
    columns["row"] = [f"`{name}`" for name in columns["row"]]
    if not any(columns["seeds"]):
        del columns["seeds"]
    lines = [
        tuple(columns),
        ("---", *["---:"] * (len(columns) - 1)),
        *zip(*columns.values(), strict=True),
    ]
    quoted = [row for row in rows if row.published is not None]
    sources = [
        f"- `{row.name}` {row.published.accuracy:.1f}: {row.published.source}"
        for row in quoted
        if row.published is not None
    ]
    said = ["", EXPLAINED, *(["", "Published numbers:", "", *sources] if sources else [])]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *said])


def as_csv(rows: Sequence[Row], outcomes: Mapping[str, Outcome]) -> str:
    """Return a line for every run, accuracies between 0 and 1; of rows not begun one without."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "seed", "best_epoch", "test_accuracy", "published", "source"])
    for row in rows:
        number = row.published
        said = ["", ""] if number is None else [f"{number.accuracy / 100:.4f}", number.source]
        runs = outcomes[row.name].results if row.name in outcomes else {}
        for seed, result in sorted(runs.items()):
            found = f"{result.test['accuracy']:.4f}"
            writer.writerow([row.name, seed, result.best_epoch, found, *said])
        if not runs:
            writer.writerow([row.name, "", "", "", *said])
    return file.getvalue()


def _columns(
    rows: Sequence[Row], outcomes: Mapping[str, Outcome], seeds: Sequence[int]
) -> dict[str, list[str]]:
    there = [outcomes.get(row.name) for row in rows]
    counts = [0 if each is None else len(each.results) for each in there]
    short = any(count < len(seeds) for count in counts)
    return {
        "row": [row.name for row in rows],
        "accuracy": ["" if each is None else f"{each.accuracy}" for each in there],
        "against joint": [
            "" if each is None or each.versus is None else f"{each.versus:+}" for each in there
        ],
        "audio": [_of("audio", each) for each in there],
        "visual": [_of("visual", each) for each in there],
        "seeds": [f"{count}/{len(seeds)}" if short else "" for count in counts],
        "published": [
            "" if row.published is None else f"{row.published.accuracy:.1f}" for row in rows
        ],
    }


def _of(modality: str, outcome: Outcome | None) -> str:
    found: Estimate | None = None if outcome is None else outcome.modalities.get(modality)
    return "" if found is None else f"{100 * found.mean:.1f}"
