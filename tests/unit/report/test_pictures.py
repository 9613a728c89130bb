"""Figures: every method and class is legible, and files are what a paper takes."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from equimodal.compare.runs import Entry, Run
from equimodal.compare.statistics import difference, estimate
from equimodal.compare.summary import Row
from equimodal.report import paper
from equimodal.report.classes import classes
from equimodal.report.contributions import pictures
from equimodal.report.findings import Findings
from equimodal.report.lines import Line, coloured, lines_of
from equimodal.report.picture import INK, LONGEST, PALE, SERIES, Picture, short
from equimodal.report.progress import balancing, learning, measured
from equimodal.report.standing import by_chance, differences
from equimodal.report.svg import inline
from support.reports import diagnosis, result

SIX = tuple(f"modality {n}" for n in range(6))
METHODS = ("joint", *(f"method number {n}" for n in range(37)))


def rows_of(methods: tuple[str, ...], modalities: tuple[str, ...], seeds: int = 5) -> list[Row]:
    rows = []
    joint: list[float] = []
    for name in methods:
        results = {s: result(Run(name, name, {}, s), modalities) for s in range(seeds)}
        values = [r.test["accuracy"] for r in results.values()]
        joint = joint or values
        versus = None if name == "joint" else difference(values, joint)
        singles = {m: estimate(values) for m in modalities}
        overall = estimate(values)
        rows.append(Row(Entry(name, name), {}, results, 0, overall, overall, versus, None, singles))
    return rows


@pytest.fixture(scope="module")
def many() -> list[Row]:
    return rows_of(METHODS, SIX)


def drawn(picture: Picture, width: float) -> tuple[Figure, Any]:
    with mpl.rc_context(paper.TEXT):
        figure = paper._figure(picture, width)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return figure, canvas.get_renderer()


def overlaps(picture: Picture, width: float) -> list[str]:
    """Name texts of a figure that lie on each other, or beyond its edge."""
    figure, renderer = drawn(picture, width)
    found = []
    right, top = figure.canvas.get_width_height()
    for axes in figure.axes:
        labels = [t for t in (*axis_texts(axes), axes.title, axes.xaxis.label) if t.get_text()]
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in labels]
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            if a.x0 < b.x1 - 1 and b.x0 < a.x1 - 1 and a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1:
                found.append(f"{one} on {other}")
        for text, box in boxes:
            if box.x0 < -1 or box.y0 < -1 or box.x1 > right + 1 or box.y1 > top + 1:
                found.append(f"{text} beyond the edge")
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        if box.x0 < -1 or box.x1 > right + 1 or box.y0 < -1:
            found.append("legend beyond the edge")
    return found


def axis_texts(axes: Any) -> list[Any]:
    """Return the labels of the ticks that are seen."""
    low, high = sorted(axes.get_ylim())
    return [t for t in axes.yaxis.get_ticklabels() if low <= t.get_position()[1] <= high]


@pytest.mark.parametrize("width", paper.WIDTHS.values())
def test_many_methods_and_modalities_are_legible(many: list[Row], width: float) -> None:
    lines = lines_of(many)
    shown = [differences(many), learning(lines, SIX, dict.fromkeys(SIX, 0.7))]
    for picture in shown:
        assert picture is not None
        assert overlaps(picture, width) == []


def test_as_many_methods_are_set_off_as_there_are_colours(many: list[Row]) -> None:
    lines = lines_of(many)
    looks = [line.colour for line in lines]
    assert looks[0] == INK
    assert sorted(c for c in looks if c != PALE) == sorted([INK, *SERIES])
    best = {
        row.label: np.mean([r.val["accuracy"] for r in row.results.values()]) for row in many[1:]
    }
    better = {row.label for row in many if row.versus and row.versus.low > 0}
    ordered = sorted(best, key=lambda name: (name in better, best[name]))[-len(SERIES) :]
    assert {line.label for line in lines if line.colour in SERIES} == set(ordered)
    picture = learning(lines, SIX, {})
    assert picture is not None
    assert f"{37 - len(SERIES)} other methods" in [key.label for key in picture.keys]
    assert len(picture.table.rows) == 38 * 7  # all of them are in the table


def test_methods_of_one_label_are_told_apart_and_leave_the_legend_short() -> None:
    rows = rows_of(("joint", *["ogm"] * 20), ("x", "y"))
    looks = [line.colour for line in lines_of(rows)]
    assert sorted(c for c in looks if c != PALE) == sorted([INK, *SERIES])
    picture = learning(lines_of(rows), ("x", "y"), {})
    assert picture is not None
    assert len(picture.keys) == 1 + len(SERIES) + 1  # joint, in colour, "14 other methods"
    few = coloured([Line("ogm", [], PALE), Line("ogm", [], PALE), Line("ogm", [], SERIES[0])])
    assert [line.colour for line in few] == [SERIES[1], SERIES[2], SERIES[0]]


def test_long_names_that_differ_at_either_end_stay_apart() -> None:
    names = [f"an experiment with a learning rate of {n}" for n in range(20)]
    names += [f"{n} years of age, and of another place" for n in range(20)]
    found = [short(name) for name in names]
    assert len(set(found)) == 40
    assert max(map(len, found)) == LONGEST


def test_few_methods_all_have_their_own_look() -> None:
    lines = lines_of(rows_of(("joint", "a", "b", "c"), ("x", "y"), 2))
    assert len({line.colour for line in lines}) == 4
    assert PALE not in {line.colour for line in lines}


def test_a_curve_is_the_mean_of_what_there_is() -> None:
    runs = [result(Run("a", "a", {}, s), ("x",), epochs=2 + s) for s in (0, 1)]
    first, second = ([e["val/accuracy"] for e in r.history] for r in runs)
    runs[0].history[1]["val/accuracy"] = float("nan")
    curve = Line("a", runs, INK).curve("val/accuracy")
    assert curve == pytest.approx([(first[0] + second[0]) / 2, second[1], second[2]])
    assert Line("a", runs, INK).curve("val/absent") is None
    for run in runs:
        run.history[0]["val/accuracy"] = float("inf")
    curve = Line("a", runs, INK).curve("val/accuracy")
    assert curve is not None
    assert np.isnan(curve[0])


def test_differences_are_drawn_where_they_are() -> None:
    rows = rows_of(("joint", "a", "b"), ("x", "y"))
    picture = differences(rows)
    assert picture is not None
    figure, _ = drawn(picture, 3.35)
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    dots = {
        names[int(line.get_ydata()[0])]: line.get_xdata()[0]  # type: ignore[index]
        for line in axes.lines
        if line.get_marker() == "o"
    }
    expected = {row.label: 100 * row.versus.mean for row in rows if row.versus}
    assert dots == pytest.approx(expected)


def test_panels_share_their_axis_and_a_ratio_is_logarithmic() -> None:
    rows = rows_of(("joint", "ogm"), ("x", "y"), 2)
    ratio, coefficient = balancing(lines_of(rows), ("x", "y"))
    assert [ratio.name, coefficient.name] == ["ratio", "coefficient"]
    figure, _ = drawn(ratio, 6.9)
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert [key.label for key in coefficient.keys] == ["ogm"]  # the only one that has any
    low, high = figure.axes[0].get_ylim()
    values = [
        e[f"train/ratio/{m}"]
        for r in rows
        for x in r.results.values()
        for e in x.history
        for m in "xy"
    ]
    assert low < min(np.mean(np.reshape(values, (2, 2, 3, 2)), axis=1).ravel())
    assert high > 1


def test_chance_is_counted_over_the_methods() -> None:
    rows = rows_of(METHODS, ("x", "y"))
    assert "37 methods" in by_chance(rows)
    assert "about 2 would" in by_chance(rows)  # 37 / 20 = 1.9
    assert by_chance(rows[:2]) == ""


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_diagnosis_has_its_figures(count: int) -> None:
    names = SIX[:count]
    shown = pictures(Findings(diagnosis(names, [f"class {n}" for n in range(40)])))
    assert [picture.name for picture in shown] == [
        "shapley", "subsets", "encoders", "classes", "robustness", "calibration",
    ]  # fmt: skip
    for picture in shown:
        assert overlaps(picture, 3.35) == []
    by_class = next(picture for picture in shown if picture.name == "classes")
    assert len(by_class.table.rows) == 41  # all classes, and over all


def test_classes_are_sorted_by_who_leads_and_bars_add_up() -> None:
    found = diagnosis(("a", "v"), ("guitar", "snow", "absent"))
    found["agreement"]["per_class"] = {
        "guitar": {"both": 0.2, "only": {"a": 0.6, "v": 0.1}, "neither": 0.1, "samples": 9},
        "snow": {"both": 0.2, "only": {"a": 0.1, "v": 0.4}, "neither": 0.3, "samples": 9},
    }
    picture = classes(Findings(found))
    assert picture is not None
    figure, _ = drawn(picture, 3.35)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["snow", "guitar"]  # upwards
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([10, 40, 20, 30, 60, 10, 20, 10])
    assert [row[0].text for row in picture.table.rows] == [
        "all classes",
        "guitar",
        "snow",
        "absent",
    ]
    assert [cell.text for cell in picture.table.rows[3][1:]] == ["", "", "", ""]


def test_files_are_as_wide_as_columns_with_their_fonts(tmp_path: Path) -> None:
    picture = learning(lines_of(rows_of(("joint", "a"), ("x", "y"), 2)), ("x", "y"), {"x": 0.5})
    assert picture is not None
    paths = {path.name: path for path in paper.save(picture, tmp_path)}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(paths)
    first = {path: path.read_bytes() for path in paths.values()}
    paper.save(picture, tmp_path)
    assert {path: path.read_bytes() for path in first} == first
    for width, inches in paper.WIDTHS.items():
        pdf = paths[f"learning-{width}.pdf"].read_bytes()
        assert b"/FontFile2" in pdf  # TrueType, embedded
        assert b"/Type3" not in pdf
        (box,) = set(re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf))
        assert float(box) == pytest.approx(72 * inches, abs=0.1)
        svg = paths[f"learning-{width}.svg"].read_text()
        assert "<text" not in svg  # letters are shapes: no font is needed
        assert f'width="{72 * inches:g}pt"' in svg


def test_dollars_are_no_formulas_and_long_names_are_cut() -> None:
    name = "a $\\frac{1}$ method " + "with a name " * 9
    rows = rows_of(("joint", name), ("x", "y"), 2)
    picture = differences(rows)
    assert picture is not None
    svg = inline(picture.panels[0], "here", "said")
    assert "a $\\frac{1}$…with a name" in re.sub(r"<[^>]*>", "", svg)
    assert overlaps(picture, 3.35) == []


def test_images_of_a_page_do_not_share_identifiers() -> None:
    picture = differences(rows_of(("joint", "a"), ("x", "y"), 2))
    assert picture is not None
    one, other = (set(re.findall(r' id="([^"]+)"', inline(picture.panels[0], n, ""))) for n in "ab")
    assert one
    assert not one & other
    rng = random.getstate()
    inline(picture.panels[0], "a", "")
    assert random.getstate() == rng


def test_an_epoch_between_gaps_is_a_point_and_one_panel_is_named() -> None:
    gap = float("nan")
    curves = {"update_norm": {"x": [1.0, gap, 2.0, 3.0], "y": [gap, 4.0, gap, gap]}}
    picture = measured(curves, ("x", "y"))
    assert picture is not None
    figure, _ = drawn(picture, 3.35)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "update norm"
    dots = [
        list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axes.lines
        if line.get_marker() == "o"
    ]
    assert sorted(dot for each in dots for dot in each) == [(1, 1.0), (2, 4.0)]
