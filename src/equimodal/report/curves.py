"""A figure of how each modality learns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Curves = NDArray[np.float64]

# Okabe and Ito's colours, which readers with any colour vision can tell apart.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2")
STYLE = {
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
            and 1. A curve is the mean over the seeds.
        references: for a panel the accuracy of that modality trained alone: a dashed line.
        title: of the figure.
        banded: the method whose range over the seeds is drawn as a band; bands of several would
            hide each other.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(panels), 3.5), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        methods = list(dict.fromkeys(name for curves in panels.values() for name in curves))
        colours = dict(zip(methods, COLOURS, strict=False))
        for axis, (name, curves) in zip(axes, panels.items(), strict=True):
            _panel(axis, name, curves, references.get(name), colours, banded)
        axes[0].set_ylabel("validation accuracy (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        for axis in axes[1:]:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                if label not in labels:
                    handles.append(handle)
                    labels.append(label)
        columns = min(len(labels), 2 * len(panels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _panel(
    axis: Axes,
    name: str,
    curves: Mapping[str, Curves],
    reference: float | None,
    colours: Mapping[str, str],
    banded: str | None,
) -> None:
    for method, values in curves.items():
        epochs = np.arange(1, values.shape[1] + 1)
        colour = colours.get(method, "#999999")
        axis.plot(epochs, 100 * values.mean(axis=0), color=colour, label=method, linewidth=1.6)
        if method == banded:
            low, high = 100 * values.min(axis=0), 100 * values.max(axis=0)
            axis.fill_between(epochs, low, high, color=colour, alpha=0.1, linewidth=0)
    if reference is not None:
        label = "the modality alone"
        axis.axhline(100 * reference, color="#555555", linestyle="--", linewidth=1, label=label)
    axis.set_title(name, fontsize=9)
    axis.set_xlabel("epoch")
    axis.margins(x=0.01)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG for the screen, and as SVG and PDF for a paper."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg", "pdf")]
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        if path.suffix == ".pdf":
            metadata = {"CreationDate": None}
        figure.savefig(path, dpi=160, metadata=metadata)
    return paths
