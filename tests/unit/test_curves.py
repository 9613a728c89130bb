"""The figure: every curve is there, can be told from the others, and is what it says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from equimodal.compare import main_job
from equimodal.compare.figure import learning
from equimodal.compare.runs import planned
from equimodal.compare.summary import summarised
from equimodal.report import learning_curves, save
from equimodal.report.curves import Curves
from equimodal.training import Result

BLANK = Result("made up", "0", "", {}, 0, {}, {}, [], 0.0, {})


def curves(methods: int, seeds: int = 3, epochs: int = 6) -> dict[str, Curves]:
    rng = np.random.default_rng(methods)
    return {
        f"method {n}": np.sort(rng.uniform(0.2, 0.9, (seeds, epochs)), axis=1)
        for n in range(methods)
    }


@pytest.mark.parametrize(("panels", "methods"), [(2, 3), (3, 5), (7, 9), (5, 16), (1, 1)])
def test_every_method_can_be_told_apart(panels: int, methods: int) -> None:
    given = {f"panel {n}": curves(methods) for n in range(panels)}
    figure = learning_curves(given, {"panel 0": 0.7}, "made up", banded="method 0")
    assert [axis.get_title() for axis in figure.axes] == list(given)
    for axis in figure.axes:
        lines = [line for line in axis.lines if str(line.get_label()).startswith("method")]
        looks = {(line.get_color(), line.get_linestyle()) for line in lines}
        assert len(looks) == len(lines) == methods
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        *(f"method {n}" for n in range(methods)), "trained alone, best epoch", "range of method 0",
    ]  # fmt: skip
    assert figure.get_figwidth() <= 12


def test_a_curve_is_the_mean_over_the_seeds_and_the_band_their_range() -> None:
    values = np.array([[0.1, 0.4], [0.3, 0.8], [0.2, 0.9]])
    figure = learning_curves({"a": {"joint": values, "ge": values[:1]}}, {}, "", banded="joint")
    joint, ge = figure.axes[0].lines
    assert np.asarray(joint.get_ydata()) == pytest.approx([20, 70])
    assert np.asarray(ge.get_ydata()) == pytest.approx([10, 40])
    assert list(np.asarray(joint.get_xdata())) == [1, 2]
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {tuple(c) for c in np.round(np.asarray(corners), 6)} >= {
        (1, 10), (1, 30), (2, 40), (2, 90),
    }  # fmt: skip


def overlaps(figure: object) -> list[str]:
    """Names of texts that lie on each other or beyond the edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = {"legend": figure.legends[0].get_window_extent(renderer)}
    boxes["title"] = figure.texts[0].get_window_extent(renderer) if figure.texts else None
    if figure._suptitle is not None:
        boxes["title"] = figure._suptitle.get_window_extent(renderer)
    for number, axis in enumerate(figure.axes):
        boxes[f"axes {number}"] = axis.get_tightbbox(renderer)
    found = []
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        if a.x0 < b.x1 - 1 and b.x0 < a.x1 - 1 and a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1:
            found.append(f"{one} on {other}")
    width, height = figure.canvas.get_width_height()
    for name, box in boxes.items():
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            found.append(f"{name} beyond the edge")
    return found


@pytest.mark.parametrize(("panels", "methods"), [(2, 2), (3, 5), (7, 12)])
def test_nothing_lies_on_anything_else(panels: int, methods: int) -> None:
    given = {f"panel {n}": curves(methods) for n in range(panels)}
    title = "watch: each modality read through the joint head, mean over 4 to 5 seeds"
    figure = learning_curves(given, {"panel 1": 0.7}, title, banded="method 0")
    assert overlaps(figure) == []


@pytest.mark.parametrize("finished", [None, 17, 5])
def test_rows_that_lack_seeds_are_drawn_from_those_they_have(finished: int | None) -> None:
    modalities = ("pix", "mor")
    entries = main_job(modalities, [0.1])
    rng = np.random.default_rng(0)
    results = {}
    for run in planned(entries, range(3))[:finished]:
        names = ["val/accuracy", *(f"val/accuracy/{m}" for m in modalities)]
        history = [{name: float(rng.uniform()) for name in names} for _ in range(4)]
        test = {n.removeprefix("val/"): 0.5 for n in names} | {"macro_f1": 0.5}
        results[run.name] = replace(BLANK, val={"accuracy": 0.6}, test=test, history=history)
    rows = summarised(entries, range(3), results, modalities)
    figure = learning(rows, modalities, "mfeat")
    assert [axis.get_title() for axis in figure.axes] == ["all modalities", *modalities]
    counts = {len(row.results) for row in rows}
    said = f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else f"{counts.pop()} seed"
    assert said in figure.get_suptitle()
    by_label = {line.get_label(): line for line in figure.axes[1].lines}
    for row in rows:
        if row.entry.method not in ("unimodal", "ensemble"):
            mean = np.mean(
                [[100 * e["val/accuracy/pix"] for e in r.history] for r in row.results.values()], 0
            )
            assert np.asarray(by_label[row.label].get_ydata()) == pytest.approx(mean)
    assert float(np.asarray(by_label["trained alone, best epoch"].get_ydata())[0]) == 60


def test_files_are_whole_and_the_same_every_time(tmp_path: Path) -> None:
    figure = learning_curves({"a": curves(2)}, {}, "made up")
    paths = save(figure, tmp_path, "learning")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "learning.pdf", "learning.png", "learning.svg",
    ]  # fmt: skip
    first = [path.read_bytes() for path in paths]
    again = save(learning_curves({"a": curves(2)}, {}, "made up"), tmp_path, "learning")
    assert [path.read_bytes() for path in again] == first
    assert b"<text" in (tmp_path / "learning.svg").read_bytes()  # text stays text
