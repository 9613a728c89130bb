"""A figure of dots with intervals: a row for each modality, a mark for each way of measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from equimodal.report.findings import Measured
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
    share,
    short,
)  # fmt: skip

MARKERS = "osD^vPX"

Series = Mapping[str, Mapping[str, Measured]]  # by name of the series and of the row


def dotted(
    name: str,
    title: str,
    caption: str,
    series: Series,
    label: str,
    rows_are: str,
    *,
    line: float | None,
    shown: Sequence[str] | None = None,
    further: Series | None = None,
) -> Picture | None:
    """Draw a dot with its interval for every row and series, in per cent."""
    series = {each: dict(values) for each, values in series.items() if values}
    rows = list(dict.fromkeys(row for values in series.values() for row in values))
    if not rows:
        return None
    drawn = [row for row in rows if shown is None or row in shown]
    looks = {
        each: ((INK, *SERIES)[n % 7], MARKERS[n % len(MARKERS)]) for n, each in enumerate(series)
    }
    in_table = {each: values for each, values in (further or series).items() if values}
    pairs = [
        f"{row}, {each} {100 * series[each][row].value:.1f}"
        for row in drawn
        for each in series
        if row in series[each]
    ]
    return Picture(
        name,
        title,
        caption,
        f"{title}, in per cent: {'; '.join(pairs)}.",
        [
            Panel(
                title,
                _dots(drawn, series, looks, label, line),
                0.7 + (0.13 + 0.1 * len(series)) * len(drawn),
                wide=True,
            )
        ],
        [Key(each, look[0], "", look[1]) for each, look in looks.items()],
        Table(
            f"{title}, in per cent with 95% interval",
            [rows_are, *in_table],
            [
                [
                    Cell(row, row),
                    *(
                        share(values[row].value, (values[row].low, values[row].high))
                        if row in values
                        else Cell("")
                        for values in in_table.values()
                    ),
                ]
                for row in rows
            ],
        ),
    )


def _dots(
    rows: Sequence[str],
    series: Series,
    looks: Mapping[str, tuple[str, str]],
    label: str,
    line: float | None,
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        if line is not None and math.isfinite(line):
            axes.axvline(100 * line, color=QUIET, linewidth=0.8)
        step = 0.6 / max(1, len(series))
        for place, (each, values) in enumerate(series.items()):
            colour, marker = looks[each]
            offset = (place - (len(series) - 1) / 2) * step
            for position, row in enumerate(rows):
                found = values.get(row)
                if found is None or not math.isfinite(found.value):
                    continue
                y = position + offset
                if math.isfinite(found.low) and math.isfinite(found.high):
                    axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, lw=1.4)
                axes.plot(100 * found.value, y, marker, color=colour, markersize=4)
        axes.set_yticks(range(len(rows)), [short(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(color=GRID, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(label)

    return draw
