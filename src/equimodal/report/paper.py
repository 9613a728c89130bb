"""Figures in files that a paper takes: SVG and PDF, as wide as one column or two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from equimodal.report.picture import STYLE, Key, Picture, short
from equimodal.report.svg import WIDTH as DRAWN

WIDTHS = {"single": 3.35, "double": 6.9}  # inches: the columns of the common two-column layouts
FONT = 7
LONGEST = 32  # letters of a legend's entry
NARROWEST = 1.6  # inches that a panel takes
LETTER, HANDLE = 0.056, 0.5  # inches that a letter of the legend and the line before it take
TEXT: Any = {
    **STYLE,
    "font.size": FONT,
    "axes.titlesize": FONT,
    "lines.linewidth": 1.0,
    "svg.fonttype": "path",  # nobody has to have the font
}


def save(picture: Picture, folder: Path) -> list[Path]:
    """Write a figure in both widths; a file is there whole or not at all."""
    paths = []
    for width, inches in WIDTHS.items():
        with mpl.rc_context(TEXT):
            figure = _figure(picture, inches)
            for kind, metadata in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
                path = folder / f"{picture.name}-{width}.{kind}"
                partial = path.with_name(f"{path.name}.partial")
                try:
                    figure.savefig(partial, format=kind, metadata=metadata)
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
                paths.append(path)
    return paths


def _figure(picture: Picture, width: float) -> Figure:
    panels = picture.panels
    least = DRAWN - 0.1 if any(panel.wide for panel in panels) else NARROWEST
    columns = max(1, min(len(panels), int(width / least)))
    rows = math.ceil(len(panels) / columns)
    columns = math.ceil(len(panels) / rows)
    heights = [
        max(panel.height for panel in panels[row * columns : (row + 1) * columns])
        * (1.0 if panels[0].wide else min(1.0, width / columns / DRAWN + 0.25))
        for row in range(rows)
    ]
    per_line, lines = _legend_lines(picture.keys, width)
    figure = Figure(figsize=(width, sum(heights) + 0.16 * lines + 0.05), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    axes = list(grid.flat)
    for axis, panel in zip(axes, panels, strict=False):
        panel.draw(axis)
        if len(panels) > 1:
            axis.set_title(short(panel.title, 34))
    for axis in axes[len(panels) :]:
        axis.remove()
    if picture.keys:
        figure.legend(
            [_handle(key) for key in picture.keys],
            [short(key.label, LONGEST) for key in picture.keys],
            loc="outside lower center",
            ncols=per_line,
            borderpad=0,
            columnspacing=1.2,
        )
    return figure


def _legend_lines(keys: Sequence[Key], width: float) -> tuple[int, int]:
    if not keys:
        return 1, 0
    widest = LETTER * max(len(short(key.label, LONGEST)) for key in keys) + HANDLE
    per_line = max(1, min(len(keys), int(width / widest)))
    return per_line, math.ceil(len(keys) / per_line)


def _handle(key: Key) -> Any:
    if key.line or key.marker:
        line = key.line or "none"
        return Line2D([], [], color=key.colour, ls=line, marker=key.marker or None, markersize=4)
    return Patch(color=key.colour)
