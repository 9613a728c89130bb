"""The record: rows are trained and kept, and what is committed follows from its table."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from pathlib import Path

import pytest
import torch
from benchmarks.record import __main__ as command
from benchmarks.record import design, page, picture, said, searching, sources, table, training
from benchmarks.record.design import Trial
from benchmarks.record.table import Trained
from benchmarks.record.verdicts import everywhere, ranks, verdicts
from scipy import stats

from equimodal.data.arrays import Arrays

PLAN = design.read()
RENEW = "python -m benchmarks.record.page writes pages, picture and records anew"
TWO = ("accelerometer", "gyroscope")


def tiny(samples: int) -> Arrays:
    generator = torch.Generator().manual_seed(samples)
    target = torch.arange(samples) % 3
    made = {
        name: torch.randn(samples, 3, 8, generator=generator) + target[:, None, None]
        for name in TWO
    }
    return Arrays(made, target)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> design.Design:
    """A record of one tiny data set and two epochs."""
    monkeypatch.setitem(sources.SOURCES, "tiny", lambda: (tiny(24), tiny(12), tiny(15)))
    sets = {"tiny": {"title": "three classes", "epochs": 2, "batch": 8}}
    return design.Design(2, 0.9, PLAN.decay, PLAN.rates, sets)


# ------------------------------------------------------------------ the design


def test_every_row_has_as_many_trials_with_the_same_rates() -> None:
    rows = PLAN.rows("watch", TWO)
    labels = [row.label for row in rows]
    assert labels[:4] == list(design.BASELINES)
    assert len(labels) == len(set(labels))
    assert "greedy" not in labels
    assert {"ogm", "ogm-ge", "midas", "umt", "gyroscope alone"} < {*labels}
    for row in rows:
        trials = PLAN.trials(row, TWO)
        assert [(t.condition, t.rate) for t in trials] == [
            (f"{encoder}, {optimizer}", rate)
            for encoder in ("plain", "normalised")
            for optimizer in ("sgd", "adamw")
            for rate in PLAN.rates[optimizer]
        ]


def test_three_settings_of_a_method_go_around() -> None:
    (row,) = [each for each in PLAN.rows("watch", TWO) if each.label == "ogm-ge"]
    alphas = [trial.options["ogm-ge"].get("alpha") for trial in PLAN.trials(row, TWO)]
    first, second, third = alphas[:2] + alphas[3:4]
    assert first is None, "the default"
    assert len({first, second, third}) == 3
    assert alphas == [first, second, second, third, third, first, first, second]


# ------------------------------------------------------------------ training


def test_a_row_is_searched_and_the_best_is_trained_anew(small: design.Design) -> None:
    (row,) = [each for each in small.rows("tiny", TWO) if each.label == "multi-loss"]
    found = searching.searched(small, "tiny", row)
    assert [each.seed for each in found] == [0] * 8 + [1, 2]
    chosen = max(found[:8], key=lambda each: each.val)
    assert [each.trial for each in found[8:]] == [chosen.trial] * 2
    assert found[0] == Trained(
        found[0].trial, 0, *training.trained(small, "tiny", found[0].trial, 0)
    )


@pytest.mark.parametrize("name", ["umt", "reconboost", "data-remixing", "mla", "masam"])
def test_methods_that_want_more_of_a_loop_are_trained(small: design.Design, name: str) -> None:
    (row,) = [each for each in small.rows("tiny", TWO) if each.label == name]
    trial = small.trials(row, TWO)[-1]
    val, test = training.trained(small, "tiny", trial, 0)
    assert 0 < val <= 1
    assert 0 < test <= 1


def test_teachers_are_those_of_the_trial(small: design.Design) -> None:
    first, other = (Trial("plain", "sgd", rate, {"umt": {}, "g2d": {}}) for rate in (0.03, 0.1))
    keys = [training._Key((small, "tiny", trial, 0)) for trial in (first, first, other)]
    assert keys[0] == keys[1] != keys[2]


def test_what_cannot_run_says_why(small: design.Design) -> None:
    (row,) = [each for each in small.rows("tiny", TWO) if each.label == "ogm"]
    asked = small.trials(row, TWO)[0]
    broken = Trial(asked.encoder, asked.optimizer, asked.rate, {"ogm": {"alpha": -1.0}})
    found = searching._one(small, "tiny", broken, 0)
    assert (found.val, found.test) == (0.0, 0.0)
    assert found.failed.startswith("OGM(alpha): expected")


def test_a_failed_trial_costs_no_row_and_a_failed_seed_does() -> None:
    trial = Trial("plain", "sgd", 0.03, {})
    searched = [Trained(trial, 0, 0.0, 0.0, "why"), Trained(trial, 0, 0.8, 0.7)]
    fresh = [Trained(trial, seed, 0.8, 0.7) for seed in (1, 2)]
    assert table.lacking([*searched, *fresh]) == ""
    assert table.lacking(searched[:1]) == "why"
    assert table.lacking([*searched, *fresh, Trained(trial, 3, 0.0, 0.0, "diverged")]) == "diverged"


def test_a_stopped_run_goes_on(
    small: design.Design,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is in the table is not trained again: with all rows there, nothing is."""
    monkeypatch.setattr(design, "read", lambda path=None: small)
    path = tmp_path / "trainings.csv"
    held = {
        ("tiny", row.label): [Trained(Trial("plain", "sgd", 0.03, {}), 0, 0.5, 0.25)]
        for row in small.rows("tiny", TWO)
    }
    table.write(held, path)
    before = path.read_bytes()
    command.main(["--table", str(path)])
    assert path.read_bytes() == before
    assert capsys.readouterr().out == ""
    assert table.read(path) == held


def test_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv: expected the columns .*found \['a', 'b'\]"):
        table.read(path)


# ------------------------------------------------------------------ data


@pytest.mark.parametrize("name", ["watch", "mfeat"])
def test_embedded_sets_are_thinned(name: str) -> None:
    train, val, test = sources.parts(name)
    assert [len(each) for each in (train, val, test)] == {
        "watch": [1096, 501, 742],
        "mfeat": [200, 300, 500],
    }[name]


def test_archives_that_are_not_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQUIMODAL_ARCHIVES", str(tmp_path))
    with pytest.raises(SystemExit, match=r"grid_words\.npz: not here.*EQUIMODAL_ARCHIVES"):
        sources.grid(3)()


def test_another_file_of_a_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.record.packages.CACHE", tmp_path)
    (tmp_path / sources.AEON.file).write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"aeon.*whl: expected SHA-256 .*; remove it"):
        sources.motions()


# ------------------------------------------------------------------ what is committed


def test_pages_and_records_are_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main(["--check"]) == 0, capsys.readouterr().out + RENEW


def test_the_committed_picture_was_made_of_the_committed_table() -> None:
    assert page.source().encode() in page.FIGURE.with_suffix(".svg").read_bytes(), RENEW


def test_records_follow_from_the_table_by_hand() -> None:
    """A slow twin: from the lines of the file to intervals, without our reader or statistics."""
    lines = list(csv.DictReader(table.TABLE.read_text().splitlines()))

    def fresh(name: str, row: str) -> list[float]:
        own = [line for line in lines if (line["set"], line["row"]) == (name, row)]
        assert [line["seed"] for line in own] == ["0"] * 8 + ["1", "2", "3", "4", "5"]
        searched = own[:8]
        vals = [float(line["val"]) for line in searched]
        chosen = searched[vals.index(max(vals))]
        for line in own[8:]:
            assert all(line[of] == chosen[of] for of in ("encoder", "optimizer", "rate", "options"))
        return [float(line["test"]) for line in own[8:]]

    recorded = json.loads(page.RECORDS.read_text())
    assert list(recorded["sets"]) == list(PLAN.sets)
    assert len(recorded["differences"]) >= 40
    for row, on in recorded["differences"].items():
        for name, written in on.items():
            pairs = zip(fresh(name, row), fresh(name, "joint"), strict=True)
            gaps = [ours - theirs for ours, theirs in pairs]
            mean = statistics.mean(gaps)
            half = stats.t.ppf(0.975, 4) * statistics.stdev(gaps) / math.sqrt(5)
            expected = [100 * (mean + of * half) for of in (0, -1, 1)]
            assert written == pytest.approx(expected, abs=0.051), (row, name)


def test_ranks_are_of_all_rows_that_are_everywhere() -> None:
    found = verdicts(PLAN, table.read())
    rows = everywhere(found)
    ranking = ranks(found)
    assert {*ranking.mean} == {*rows} >= {"joint", "multi-loss", "ogm-ge", "midas"}
    accuracies = {row: found["emoji"][row].test.mean for row in rows}
    best = max(accuracies.values())
    text = page.RESULTS.read_text()
    emoji = text.split("### emoji\n")[1].split("\n### ")[0]
    numbers = [float(of) for of in re.findall(r"^\| [^|]+ \| ([\d.]+) \[", emoji, flags=re.M)]
    assert numbers[0] == pytest.approx(100 * best, abs=0.051)
    assert numbers == sorted(numbers, reverse=True)
    figure = picture.drawn(ranking)
    (axes,) = figure.axes
    assert len(axes.get_yticklabels()) == len(rows)


def test_every_loss_above_three_points_is_explained_or_named_unexplained() -> None:
    text = page.RESULTS.read_text()
    section = text.split("## What loses more than three points")[1].split("\n## ")[0]
    explained = section.split("<!-- end -->")[1]
    for row, _, _ in said.losses(verdicts(PLAN, table.read())):
        assert f"`{row}`" in explained, f"{row}: neither a cause nor named unexplained"
