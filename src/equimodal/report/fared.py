"""How each class of the test split fared in a run."""

from __future__ import annotations

from pathlib import Path

from equimodal.report.page import Section
from equimodal.report.picture import Cell, Table, number, share
from equimodal.training.per_class import CLASSES, CONFUSION, PerClass

MOST = 30  # classes whose confusion the page shows


def per_class(folder: Path) -> list[Section]:
    """Return the section on the classes, where the run has written of them."""
    found = PerClass.read(folder)
    if found is None:
        return []
    shares = Table(
        "Test split, by class, in per cent",
        ["class", "precision", "recall", "F1", "samples"],
        [
            [Cell(name, name), *map(share, of), number(samples, ".0f")]
            for name, *of, samples in found.rows
        ],
    )
    tables = [shares]
    text = f"The numbers are in {CLASSES} and {CONFUSION} of the run."
    if len(found.classes) <= MOST:
        tables.append(
            Table(
                "How often which class was found: a row for each true one",
                ["true class", *found.classes],
                [
                    [Cell(name, name), *(number(count, ".0f") for count in counts)]
                    for name, counts in zip(found.classes, found.counts.tolist(), strict=True)
                ],
            )
        )
    else:
        text += f" Of more than {MOST} classes the page shows no confusion: {CONFUSION} has it."
    return [Section("classes-of-the-run", "Classes", text=text, tables=tables, folded=True)]
