"""A figure of how each modality learns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Curves = NDArray[np.float64]
Look = tuple[str, str]  # colour, line style

# Okabe and Ito's colours, which readers with any colour vision can tell apart. A method beyond
# their number takes the first colour again with another line.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2")
LINES = ("solid", "dashed", "dashdot", "dotted")
REFERENCE_LINE: Any = (0, (1, 1.5))
COLUMNS = 4  # panels in a row, at most
LETTER, HANDLE = 0.072, 0.55  # inches that a letter of the legend and the line before it take
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "equimodal",
}


def learning_curves(
    panels: Mapping[str, Mapping[str, Curves]],
    references: Mapping[str, float],
    title: str,
    banded: str | None = None,
) -> Figure:
    """Draw one panel for each modality, and in it one curve for each method.

    Args:
        panels: for each panel and method the accuracies, shape ``(seeds, epochs)``, between 0
            and 1; numbers of seeds and of epochs may differ. A curve is the mean over the seeds.
        references: for a panel the accuracy of that modality trained alone: a grey line.
        title: of the figure.
        banded: the method whose range over the seeds is drawn as a band; bands of several would
            hide each other.
    """
    rows = math.ceil(len(panels) / COLUMNS)
    columns = math.ceil(len(panels) / rows)
    methods = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    looks = dict(zip(methods, _looks(), strict=False))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(2.9 * columns, 5.5), 2.5 * rows + 1.1), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        axes = list(grid.flat)
        for axis, (name, curves) in zip(axes, panels.items(), strict=False):
            _panel(axis, name, curves, references.get(name), looks, banded)
        for axis in axes[len(panels) :]:
            axis.remove()
        for number, axis in enumerate(axes[: len(panels)]):
            axis.tick_params(labelleft=number % columns == 0)
            if number + columns >= len(panels):
                axis.set_xlabel("epoch")
        for first in grid[:, 0]:
            first.set_ylabel("validation accuracy (%)")
        _legend(figure, axes[: len(panels)])
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _looks() -> Iterator[Look]:
    for line, colour in product(LINES, COLOURS):
        yield colour, line
    while True:
        yield "#999999", "solid"


def _panel(
    axis: Axes,
    name: str,
    curves: Mapping[str, Curves],
    reference: float | None,
    looks: Mapping[str, Look],
    banded: str | None,
) -> None:
    if reference is not None:
        label = "trained alone, best epoch"
        line = REFERENCE_LINE
        axis.axhline(100 * reference, color="#777777", ls=line, linewidth=1.4, label=label)
    for method, values in curves.items():
        epochs = np.arange(1, values.shape[1] + 1)
        colour, line_style = looks[method]
        mean = 100 * values.mean(axis=0)
        # A single epoch is a point, which a line would not show.
        marker = "o" if len(epochs) == 1 else None
        axis.plot(
            epochs, mean, color=colour, ls=line_style, marker=marker, label=method, linewidth=1.5
        )
        if method == banded and len(values) > 1:
            low, high = 100 * values.min(axis=0), 100 * values.max(axis=0)
            label = f"range of {method}"
            axis.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0, label=label)
    axis.set_title(name, fontsize=9)
    axis.margins(x=0.01)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, axes: list[Axes]) -> None:
    """Name every curve once, in as many columns as there is room for."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    last = [label for label in entries if label.startswith(("trained alone", "range of"))]
    labels = [label for label in entries if label not in last] + last
    widest = LETTER * max(map(len, labels)) + HANDLE
    figure.legend(
        [entries[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=max(1, min(len(labels), int(figure.get_figwidth() / widest))),
    )


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG for the screen, and as SVG and PDF for a paper.

    A file is there whole or not at all.
    """
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg", "pdf")]
    for path in paths:
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})
        partial = path.with_name(f"{path.name}.partial")
        try:
            # The style holds for what is decided only now, such as text in an SVG.
            with mpl.rc_context(STYLE):
                figure.savefig(partial, format=path.suffix[1:], dpi=160, metadata=metadata)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return paths
