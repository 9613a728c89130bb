"""Figures over the epochs: how each modality learns, and how it is balanced meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from equimodal.compare.summary import REFERENCE
from equimodal.report.curves import LINES, REFERENCE_LINE
from equimodal.report.lines import Curve, Line, coloured
from equimodal.report.picture import (
    GRID,
    INK,
    PALE,
    QUIET,
    SERIES,
    Cell,
    Key,
    Panel,
    Picture,
    Table,
    joined,
    number,
)

WHOLE = "all modalities"
COLUMNS = 10  # epochs in a table, at most


def learning(
    lines: Sequence[Line], modalities: Sequence[str], alone: Mapping[str, float]
) -> Picture | None:
    """Draw the validation accuracy of the whole model, and of each modality in it.

    Args:
        lines: the methods.
        modalities: a panel for each.
        alone: accuracy of models of one modality, by its name.
    """
    metrics = {WHOLE: "val/accuracy", **{name: f"val/accuracy/{name}" for name in modalities}}
    known = _known(lines, metrics, 100)
    if not known:
        return None
    limits = _limits(known, [100 * level for level in alone.values()])
    panels = [
        Panel(title, _accuracies(curves, alone.get(title), limits))
        for title, curves in known.items()
    ]
    rows = _named(known)
    solo = [name for name in modalities if name in alone]
    keys = _keys(lines)
    if solo:
        keys.append(Key("a model of its own", QUIET, "dotted"))
    levels = [f"{name} {100 * alone[name]:.1f}" for name in solo]
    beside = f" Alone: {joined(levels)}." if solo else ""
    return Picture(
        "learning",
        "How each modality learns",
        "Validation accuracy in per cent, mean over the runs: of the whole model, and of each "
        "modality read through the joint head while the others are left out."
        + (" Dotted: what a model of that modality alone reaches." if solo else "")
        + _pale(lines),
        f"Validation accuracy over the epochs, {len(panels)} panels. At the end: "
        + "; ".join(f"{name} {curve[-1]:.1f}" for name, curve in rows[: 2 * len(panels)])
        + f".{beside}",
        panels,
        keys,
        _epochs("Validation accuracy in per cent, by epoch", rows, ".1f"),
    )


def balancing(lines: Sequence[Line], modalities: Sequence[str]) -> list[Picture]:
    """Draw discrepancy ratio and coefficient of each modality, as far as they were logged."""
    ratio = _quantity(
        lines,
        modalities,
        "ratio",
        "Discrepancy ratio over time",
        "How much better a modality predicts than the mean of the others, measured in training: "
        "above 1 it is ahead. Logarithmic axis.",
        logarithmic=True,
    )
    coefficient = _quantity(
        lines,
        modalities,
        "coefficient",
        "Coefficient over time",
        "What the gradient of a modality's encoder was multiplied by, mean over the measured steps "
        "of an epoch: 1 leaves it as it is.",
        logarithmic=False,
    )
    return [picture for picture in (ratio, coefficient) if picture is not None]


def _quantity(
    lines: Sequence[Line],
    modalities: Sequence[str],
    quantity: str,
    title: str,
    caption: str,
    *,
    logarithmic: bool,
) -> Picture | None:
    metrics = {name: f"train/{quantity}/{name}" for name in modalities}
    having = [line for line in lines if _known([line], metrics)]
    if not having:
        return None
    drawn = coloured(having)
    known = _known(drawn, metrics)
    limits = _limits(known, [1.0], logarithmic)
    panels = [
        Panel(name, _around_one(curves, quantity, limits, logarithmic))
        for name, curves in known.items()
    ]
    rows = _named(known)
    ends = [f"{name} {curve[-1]:.2f}" for name, curve in rows[:12]]
    return Picture(
        quantity,
        title,
        caption + _pale(drawn),
        f"{title}, {len(panels)} panels. At the end: {'; '.join(ends)}.",
        panels,
        _keys(drawn),
        _epochs(f"{title}, by epoch", rows, ".3g"),
    )


def measured(
    curves: Mapping[str, Mapping[str, Sequence[float]]], modalities: Sequence[str]
) -> Picture | None:
    """Draw curves that a diagnosis measured during training, a panel for each quantity."""
    looks = {name: _look(number) for number, name in enumerate(modalities)}
    panels, rows = [], []
    used: dict[str, tuple[str, str]] = {}
    for quantity, by_name in curves.items():
        known = []
        for name, values in by_name.items():
            colour, dash = used.setdefault(name, looks.get(name) or _look(len(looks) + len(used)))
            known.append((Line(name, [], colour, dash), np.asarray(values, dtype=float)))
        if known:
            title = quantity.replace("_", " ")
            panels.append(Panel(title, _plain(known, title)))
            rows += [(f"{title}, {line.label}", curve) for line, curve in known]
    if not panels:
        return None
    return Picture(
        "curves",
        "Measured during training",
        "By epoch, for each modality.",
        f"Curves over the epochs of {joined([panel.title for panel in panels])}.",
        panels,
        [Key(name, *look) for name, look in used.items()],
        _epochs("Measured during training, by epoch", rows, ".3g"),
    )


def _look(number: int) -> tuple[str, str]:
    colours = (INK, *SERIES)
    return colours[number % len(colours)], LINES[number // len(colours) % len(LINES)]


def _known(
    lines: Sequence[Line], metrics: Mapping[str, str], factor: float = 1
) -> dict[str, list[tuple[Line, Curve]]]:
    """Return for each panel the curves that there are."""
    found: dict[str, list[tuple[Line, Curve]]] = {}
    for title, metric in metrics.items():
        for line in lines:
            curve = line.curve(metric)
            if curve is not None:
                found.setdefault(title, []).append((line, factor * curve))
    return found


def _named(known: Mapping[str, Sequence[tuple[Line, Curve]]]) -> list[tuple[str, Curve]]:
    return [(f"{line.label}, {title}", curve) for title, cs in known.items() for line, curve in cs]


def _limits(
    known: Mapping[str, Sequence[tuple[Line, Curve]]],
    further: Sequence[float],
    logarithmic: bool = False,
) -> tuple[float, float]:
    """Return the limits of an axis that all panels share, so that they can be compared."""
    values = [curve for curves in known.values() for _, curve in curves]
    flat = np.concatenate([*values, np.asarray(further, dtype=float)])
    flat = flat[np.isfinite(flat) & ((flat > 0) | (not logarithmic))]
    low, high = float(flat.min()), float(flat.max())
    if logarithmic:
        room = max(high / low, 1.1) ** 0.06
        return low / room, high * room
    room = 0.05 * max(high - low, 1e-3)
    return low - room, high + room


def _accuracies(
    curves: Sequence[tuple[Line, Curve]], level: float | None, limits: tuple[float, float]
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        if level is not None:
            axes.axhline(100 * level, color=QUIET, ls=REFERENCE_LINE, linewidth=1.4)
        _curves(axes, curves)
        axes.set_ylim(limits)
        axes.set_ylabel("validation accuracy (%)")

    return draw


def _around_one(
    curves: Sequence[tuple[Line, Curve]],
    label: str,
    limits: tuple[float, float],
    logarithmic: bool,
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.axhline(1, color=QUIET, linewidth=0.8)
        _curves(axes, curves)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(FixedLocator(_ticks(*limits)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(limits)
        axes.set_ylabel(label)

    return draw


def _ticks(low: float, high: float) -> list[float]:
    """Choose round numbers between two, for a logarithmic axis that may span little or much.

    >>> _ticks(0.5, 2.2)
    [0.5, 1.0, 2.0]
    >>> _ticks(0.8, 1.4)
    [0.8, 1.0, 1.2, 1.4]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 2, 4, 6, 8)):
        ticks = [float(f"{step * 10.0**decade:.3g}") for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            break
    return inside


def _plain(curves: Sequence[tuple[Line, Curve]], label: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        _curves(axes, curves)
        axes.set_ylabel(label)

    return draw


def _curves(axes: Axes, curves: Sequence[tuple[Line, Curve]]) -> None:
    order = {PALE: 0, INK: 2}  # the reference on top of all, what is pale below
    for line, curve in sorted(curves, key=lambda each: order.get(each[0].colour, 1)):
        pale = line.colour == PALE
        axes.plot(
            np.arange(1, len(curve) + 1),
            curve,
            color=line.colour,
            ls=line.dash,
            linewidth=0.6 if pale else 1.5,
        )
        known = np.isfinite(np.pad(curve, 1, constant_values=np.nan))
        single = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
        if len(single):  # a line does not show an epoch without its neighbours
            axes.plot(single + 1, curve[single], "o", color=line.colour, markersize=4)
    axes.margins(x=0.02)
    if np.diff(axes.get_xlim())[0] < 1:  # a single epoch: whole numbers beside it
        axes.set_xlim(0, 2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.grid(color=GRID)


def _keys(lines: Sequence[Line]) -> list[Key]:
    keys = [Key(line.label, line.colour, line.dash) for line in lines if line.colour != PALE]
    pale = sum(line.colour == PALE for line in lines)
    return [*keys, Key(f"{pale} other methods", PALE)] if pale else keys


def _pale(lines: Sequence[Line]) -> str:
    if all(line.colour != PALE for line in lines):
        return ""
    return (
        f" In colour: what is better than {REFERENCE} training, then what has the best validation "
        "accuracy; the table has all methods."
    )


def _epochs(caption: str, rows: Sequence[tuple[str, Curve]], spec: str) -> Table:
    """Return curves as a table, of some epochs where there are many."""
    longest = max(len(curve) for _, curve in rows)
    step = -(-longest // COLUMNS)
    shown = sorted({*range(step - 1, longest, step), longest - 1})
    return Table(
        caption,
        ["curve", *(f"epoch {epoch + 1}" for epoch in shown)],
        [
            [Cell(name, name), *(number(_at(curve, epoch), spec) for epoch in shown)]
            for name, curve in rows
        ],
    )


def _at(curve: Curve, epoch: int) -> float | None:
    known = epoch < len(curve) and not np.isnan(curve[epoch])
    return float(curve[epoch]) if known else None
