"""The map of OGM-GE: two tiny cells are trained, and what is committed follows from its table."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.ogm_ge_map import __main__ as command
from benchmarks.ogm_ge_map import design, page, picture, said, training, trials, verdicts
from benchmarks.ogm_ge_map.design import Cell, Trial
from benchmarks.ogm_ge_map.verdicts import Chosen, Verdict
from benchmarks.written import marked
from scipy import stats

from equimodal.compare.statistics import Estimate, estimate
from equimodal.methods.ogm_ge_map import FILE, standing

PLAN, BEYOND = design.read(), design.read(design.BEYOND)
SIDES = ("better", "worse")
RENEW = "python -m benchmarks.ogm_ge_map.page writes page, picture and records anew"


@pytest.fixture(scope="module")
def found() -> list[Verdict]:
    return verdicts.verdicts(PLAN, trials.read())


# ------------------------------------------------------------------ training


def settings(folder: Path) -> Path:
    """Two cells of one setting that take a second, and one that is never trained."""
    made = json.loads(design.SETTINGS.read_text())
    made |= {"seeds": 2, "rates": [0.1], "between": [0.05]}
    made["base"] |= {"samples": 60, "batch": 20, "epochs": 2, "noise": 0.2}
    changed = {"space": "update", "coefficient": "continuous", "unimodal": True}
    cells = [
        {"name": "one", "label": "1"},
        {"name": "two", "label": "2", "as": changed},
        {"name": "three", "label": "3", "with": {"normalised": True, "optimizer": "adam"}},
    ]
    made["rows"] = [{"row": "all", "cells": cells}]
    path = folder / "settings.json"
    path.write_text(json.dumps(made))
    return path


def test_a_stopped_run_goes_on_and_comes_to_the_same_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = settings(tmp_path)
    tables = [tmp_path / "once.csv", tmp_path / "twice.csv"]
    given = ["--settings", str(plan), "--table"]
    command.main([*given, str(tables[0]), "--only", "one", "two"])
    command.main([*given, str(tables[1]), "--only", "one"])
    capsys.readouterr()
    command.main([*given, str(tables[1]), "--only", "one", "two"])
    out = capsys.readouterr().out
    # Joint training and multi-loss of the second cell are those of the first.
    assert re.findall(r"^(\w+): (\d+) trials", out, re.MULTILINE) == [("one", "0"), ("two", "2")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    rows = trials.read(tables[0])
    assert [(cell, method) for cell, method, _ in rows] == [
        *[("one", name) for name in ("joint", "multi-loss", "ogm-ge") for _ in range(2)],
        *[("two", "ogm-ge")] * 2,
    ]
    assert all(len(of.val) == len(of.test) == 2 for of in rows.values())
    assert len({of.test for of in rows.values()}) > 4, "methods and trials differ"
    two = verdicts.verdicts(
        design.Design(2, design.read(plan).trials, design.read(plan).cells[:2]), rows
    )
    assert two[0].chosen["joint"] == two[1].chosen["joint"]
    with pytest.raises(SystemExit, match=r"three: 2 trials of joint are not in the table.*--only"):
        verdicts.verdicts(design.read(plan), rows)


@pytest.mark.filterwarnings("ignore:Adam does not follow")
@pytest.mark.parametrize("name", ["normalised", "adam", "watch", "mfeat-pix-mor"])
def test_every_kind_of_setting_trains(name: str) -> None:
    cell = PLAN.cell(name)
    setting = {**cell.setting, "epochs": 1, "samples": 64, "batch": 600}
    reached = training.trained(setting, cell.method, "ogm-ge", Trial(0.1, 0.8), 0)
    assert all(0 < share < 1 for share in reached)


def test_some_labels_are_wrong_and_the_rest_is_left() -> None:
    right = torch.arange(6).repeat(1000)
    made = training.mislabelled(right, 0.4, 6, torch.Generator().manual_seed(0))
    assert (made != right).double().mean().item() == pytest.approx(0.4, abs=0.03)
    wrong = (made - right)[made != right] % 6
    assert wrong.unique(return_counts=True)[1].min() > 400, "every other class, about evenly"
    assert torch.equal(training.mislabelled(right, 0.0, 6, torch.Generator().manual_seed(0)), right)


def test_labels_are_wrong_in_training_and_validation_data_alone() -> None:
    setting = PLAN.cell("noise-0.4").setting
    dirty, clean = (training.splits_of({**setting, "noise": n}, 3) for n in (0.4, 0.0))
    same = [torch.equal(a[1], b[1]) for a, b in zip(dirty, clean, strict=True)]
    assert same == [False, False, True]
    assert all(torch.equal(a[0][1], b[0][1]) for a, b in zip(dirty, clean, strict=True))


# ------------------------------------------------------------------ the design


def test_every_method_has_as_many_trials_and_joint_all_rates_of_the_others() -> None:
    assert {len(of) for of in PLAN.trials.values()} == {8}
    rates = {name: {trial.rate for trial in of} for name, of in PLAN.trials.items()}
    assert rates["ogm-ge"] == rates["multi-loss"] < rates["joint"]
    assert (min(rates["joint"]), max(rates["joint"])) == (0.001, 0.1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "base", "label": "again"}, "two cells are called 'base'"),
        ({"name": "new", "label": "", "with": {"sped": 1}}, "new: the base has no sped"),
    ],
)
def test_a_design_that_says_what_it_cannot_is_refused(
    changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    made = json.loads(design.SETTINGS.read_text())
    made["rows"].append({"row": "more", "cells": [changes]})
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(made))
    with pytest.raises(ValueError, match=match):
        design.read(path)


def test_an_unknown_cell_and_another_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="unknown cell 'bse': expected one of base, speed-1"):
        command.main(["--only", "bse"])
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv: expected the columns .*found \['a', 'b'\]"):
        trials.read(other)


# ------------------------------------------------------------------ what is committed


def test_page_and_records_are_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main(["--check"]) == 0, capsys.readouterr().out + RENEW


def test_records_follow_from_the_table_by_hand() -> None:
    """A slow twin: from the lines of the file to intervals, without our own reader or statistics."""
    lines = list(csv.DictReader(trials.TABLE.read_text().splitlines()))

    def best(cell: str, method: str) -> list[float]:
        own = [line for line in lines if (line["cell"], line["method"]) == (cell, method)]
        own = [line for line in own if float(line["rate"]) <= 0.1]  # larger ones came later
        assert len(own) == 8
        means = [sum(map(float, line["validation"].split())) for line in own]
        return [*map(float, own[means.index(max(means))]["test"].split())]

    recorded = json.loads(FILE.read_text())
    assert list(recorded["cells"]) == [cell.name for cell in PLAN.cells]
    for cell in PLAN.cells:
        for rival in design.RIVALS:
            written = recorded["cells"][cell.name][rival]
            pairs = zip(best(cell.name, "ogm-ge"), best(cell.shared, rival), strict=True)
            gaps = [ours - theirs for ours, theirs in pairs]
            mean = statistics.mean(gaps)
            half = stats.t.ppf(0.975, 4) * statistics.stdev(gaps) / math.sqrt(5)
            assert written == pytest.approx(
                [100 * (mean + of * half) for of in (0, -1, 1)], abs=0.051
            )
            better, worse = (cell.name in recorded[side][rival] for side in SIDES)
            assert (better, worse) == (mean - half > 1e-9, mean + half < -1e-9)


def test_what_the_package_says_is_counted_from_the_records() -> None:
    recorded = json.loads(FILE.read_text())
    for rival in design.RIVALS:
        of = standing(rival)  # type: ignore[arg-type]
        assert of.cells == len(PLAN.cells)
        named = {cell.name: f"{cell.row}: {cell.label}" for cell in PLAN.cells}
        for spelt, side in ((of.better, "better"), (of.worse, "worse")):
            assert list(spelt) == [named[name] for name in recorded[side][rival]]
        means = {s: [recorded["cells"][n][rival][0] for n in recorded[s][rival]] for s in SIDES}
        kept = recorded["kept"].get(rival, recorded["better"][rival])
        assert of.kept == len(kept) <= len(of.better)
        assert of.most == max(means["better"], default=0.0)
        assert of.least == min(means["worse"], default=0.0)


def test_the_picture_has_a_tile_for_every_cell_and_rival(found: list[Verdict]) -> None:
    figure = picture.drawn(found)
    for axes, rival in zip(figure.axes, design.RIVALS, strict=True):
        assert [each.get_facecolor()[:3] for each in axes.patches] == [
            pytest.approx(picture.mpl.colors.to_rgb(picture.fill(of.against[rival])))
            for of in found
        ]
        words = [each.get_text() for each in axes.texts]
        assert words[1::2] == [of.cell.label for of in found]
        shown = [float(word.replace("\N{MINUS SIGN}", "-")) for word in words[::2]]
        expected = [100 * of.against[rival].mean for of in found]
        assert shown == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_committed_pictures_were_made_of_the_committed_table(kind: str) -> None:
    made = page.FIGURE.with_suffix(f".{kind}").read_bytes()
    assert page.source().encode() in made, RENEW


# ------------------------------------------------------------------ what is said


def verdict(name: str, joint: float, multi_loss: float, wide: float = 0.0) -> Verdict:
    """A verdict with differences that are given, in points."""
    test = estimate([0.5, 0.5])
    against = {
        rival: Estimate(of / 100, (of - wide) / 100, (of + wide) / 100, ())
        for rival, of in (("joint", joint), ("multi-loss", multi_loss))
    }
    cell = Cell(name, "row", "label", PLAN.cells[0].setting, {}, name)
    chosen = {each: Chosen(Trial(0.1, 0.3), test) for each in ("joint", "multi-loss", "ogm-ge")}
    return Verdict(cell, chosen, against)


def test_an_empty_second_region_is_said_first() -> None:
    empty = [verdict("a", 2.0, -3.0), verdict("b", 0.5, -1.0), verdict("c", 1.0, 1.0, wide=2.0)]
    further = [verdict("a", 1.0, -1.0), verdict("b", 0.0, 0.0), verdict("c", -9.0, -9.0)]
    assert said.answer(empty, further).startswith(
        "The region in which OGM-GE beats tuned multi-loss is empty: none of 3 settings; "
        "it is worse in 2, by 1.0 to 3.0 points. OGM-GE beats tuned joint training in 2 of 3 "
        "settings, by 0.5 to 2.0 points; it is worse in 0. "
        "With larger learning rates for all methods 1 of the 2 remain. If nothing"
    )
    other = [verdict("a", -1.0, 2.0), verdict("b", -1.0, -1.0)]
    assert said.answer(other, []).startswith("OGM-GE beats tuned multi-loss in 1 of 2 settings")
    assert "larger learning rates" not in said.answer(other, [])
    assert [picture.fill(each.against["joint"]) for each in empty] == [
        picture.FULL["better"],
        picture.FAINT["better"],
        picture.FULL["open"],
    ]


def test_the_page_begins_with_the_answer(found: list[Verdict]) -> None:
    text = page.PAGE.read_text()
    first = re.sub(r"<!--.*?-->\n", "", text).split("\n\n")[1]
    assert first == said.answer(found, verdicts.verdicts(BEYOND, trials.read()))
    empty = not verdicts.named(found, "multi-loss", "better")
    assert first.split(".")[0].startswith("The region") == empty


def test_regions_name_their_cells_the_largest_first() -> None:
    lines = said.regions([verdict("a", 0.5, -1.0), verdict("b", 2.0, -3.0)])
    assert lines.splitlines() == [
        "- **Better than tuned joint training**: b +2.0 [+2.0, +2.0]; a +0.5 [+0.5, +0.5].",
        "- **Worse than tuned joint training**: nowhere.",
        "- **Better than tuned multi-loss**: nowhere.",
        "- **Worse than tuned multi-loss**: b -3.0 [-3.0, -3.0]; a -1.0 [-1.0, -1.0].",
    ]


def test_comparisons_at_one_rate_are_counted_by_trial(found: list[Verdict]) -> None:
    head, _, *body = said.same_rate(PLAN, trials.read()).splitlines()
    assert head == "| learning rate | alpha | better | worse | of |"
    assert len(body) == len(PLAN.trials["ogm-ge"])
    own = [each for each in found if each.cell.shared == each.cell.name]
    ended = sum(each.chosen["joint"].trial.rate == 0.1 for each in own)
    assert f"0.1, in {ended} of the {len(own)} settings" in said.at_the_end(found, 0.1)


def test_what_was_added_later_is_the_same_settings_with_more_rates_for_all() -> None:
    for cell in BEYOND.cells:
        assert cell == PLAN.cell(cell.name)
    assert {len(of) for of in BEYOND.trials.values()} == {12}
    for method, of in PLAN.trials.items():
        assert {*of} < {*BEYOND.trials[method]}
        assert max(trial.rate for trial in BEYOND.trials[method]) == 0.4


def test_a_mark_that_is_missing_is_named() -> None:
    with pytest.raises(SystemExit, match="expected the mark <!-- map: x --> once, found it 0"):
        marked("nothing", "map: x", "y")
