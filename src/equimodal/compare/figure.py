"""The figure of a comparison: how each modality learns within the joint models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from equimodal.compare.summary import REFERENCE, Row
from equimodal.report import learning_curves
from equimodal.report.curves import Curves

if TYPE_CHECKING:  # `equimodal.report` says how to install it where it is missing
    from matplotlib.figure import Figure


def learning(rows: Sequence[Row], modalities: Sequence[str], title: str) -> Figure:
    """Draw the validation accuracy of each modality in the joint models, beside its model alone.

    Args:
        rows: as they are in the table; each gives a curve, its mean over the seeds it has.
        modalities: one panel for each, after one for the whole model.
        title: what the data is called.
    """
    joint = [row for row in rows if row.entry.method not in ("unimodal", "ensemble")]

    def curves(metric: str) -> dict[str, Curves]:
        return {
            row.label: np.array([[e[metric] for e in r.history] for r in row.results.values()])
            for row in joint
        }

    panels = {"all modalities": curves("val/accuracy")}
    panels |= {name: curves(f"val/accuracy/{name}") for name in modalities}
    references = {}
    for row in rows:
        if row.entry.method == "unimodal":
            best = [result.val["accuracy"] for result in row.results.values()]
            references[row.entry.options["modality"]] = sum(best) / len(best)
    counts = sorted({len(row.results) for row in rows})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    many = "seed" if counts == [1] else "seeds"
    return learning_curves(
        panels,
        references,
        f"{title}: each modality read through the joint head, mean over {seeds} {many}",
        banded=REFERENCE,
    )
