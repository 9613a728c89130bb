"""A folder of results in any state is read as far as it goes, and what is wrong is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from equimodal.compare.runs import Entry, Run, main_job
from equimodal.compare.summary import read as read_results
from equimodal.compare.summary import summarised
from equimodal.compare.tables import for_terminal, markdown
from equimodal.errors import SetupError
from equimodal.methods.registry import available
from equimodal.report.plan import entries_of
from equimodal.report.results import Results, read
from equimodal.report.standing import results_table, standing
from equimodal.tasks import HOLD, locked, note
from support.raw_clips import files_of
from support.reports import change, comparison, result

MODALITIES = ("accelerometer", "gyroscope")
JOB = main_job(MODALITIES, (0.1, 0.3))


def labels(results: Results) -> list[str]:
    return [row.entry.label for row in results.rows]


def place(folder: Path, label: str, seed: int, runs: list[Run], **options: Any) -> Path:
    """Return the folder of a run."""
    (found,) = [
        run
        for run in runs
        if (run.label, run.seed) == (label, seed) and options in ({}, run.options)
    ]
    return folder / "runs" / found.name


@pytest.mark.parametrize("plan", [True, False])
def test_rows_are_those_that_the_comparison_itself_has(tmp_path: Path, plan: bool) -> None:
    runs = comparison(tmp_path, plan=plan)
    expected = summarised(JOB, [0, 1], read_results(tmp_path / "runs", runs), MODALITIES)
    found = read(tmp_path)
    assert found.comparison
    assert found.seeds == (0, 1)
    by_label = {row.entry.label: row for row in found.rows}
    assert sorted(by_label) == sorted(row.entry.label for row in expected)
    for row in expected:
        ours = by_label[row.entry.label]
        assert (ours.label, ours.accuracy, ours.versus) == (row.label, row.accuracy, row.versus)
        assert ours.modalities == row.modalities
    if plan:
        assert labels(found) == [row.entry.label for row in expected]
        assert found.notices == []
    else:
        assert len(found.notices) == 1
        assert "plan.json" in found.notices[0]


def test_entries_are_found_again() -> None:
    entries = [*JOB, Entry("pmr", "pmr"), Entry("ogm 2", "ogm", {"alpha": 0.3, "floor": 0.1})]
    runs = [
        Run(e.label, e.method, options, s)
        for s in (0, 1)
        for e in entries
        for options in e.choices()
    ]
    assert entries_of(runs) == entries


def test_missing_seeds_and_rows_are_named_and_the_rest_is_there(tmp_path: Path) -> None:
    runs = comparison(tmp_path, plan=True, left=["ge"])
    shutil.rmtree(place(tmp_path, "ensemble", 1, runs))
    found = read(tmp_path)
    assert labels(found) == [e.label for e in JOB if e.label != "ge"]
    assert any("17 of 20 runs" in each and "3 not begun" in each for each in found.notices)
    assert "Seeds that are missing: ensemble (1)." in found.notices
    assert "No seed is finished, so that there is no row: ge." in found.notices
    table = results_table(found.rows, MODALITIES)
    seeds = {row[0].text: row[table.columns.index("seeds")].text for row in table.rows}
    assert seeds["ensemble"] == "1 of 2"
    assert seeds["joint"] == "2 of 2"


def test_a_crashed_run_is_named(tmp_path: Path) -> None:
    runs = comparison(tmp_path)
    crashed = place(tmp_path, "multi-loss", 1, runs)
    (crashed / "result.json").rename(crashed / "result.partial-17")
    (crashed / "run.json").write_text('{"data": "watch", "method": "Multi')
    found = read(tmp_path)
    assert "Broken off: multi-loss (seed 1)." in found.notices
    assert len(found.rows) == len(JOB)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"data": "wat', "damaged"),
        ("[1, 2]", "expected a JSON object, found a list"),
        ("", "damaged"),
        ('{"data": "watch"}', "it has no fingerprint"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, text: str, reason: str) -> None:
    runs = comparison(tmp_path)
    (place(tmp_path, "joint", 0, runs) / "result.json").write_text(text)
    found = read(tmp_path)
    (notice,) = [each for each in found.notices if "joint (seed 0)" in each]
    assert reason in notice
    assert {held.state for held in found.runs} == {"finished", "damaged"}
    joint = next(row for row in found.rows if row.entry.label == "joint")
    assert list(joint.results) == [1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"test": {"accuracy": 0.5}}, "its test metrics have no macro_f1"),
        ({"val": None}, "its val metrics have no accuracy"),
        ({"test__accuracy": "high"}, "its test metrics have no accuracy"),
        ({"history": {}}, "history"),
        ({"fingerprint": "another"}, "trained on other splits, another"),
        ({"test__accuracy": float("nan")}, "the accuracy is not a number: left out"),
        ({"val__accuracy": float("inf")}, "the accuracy is not a number: left out"),
    ],
)
def test_a_result_that_cannot_be_used_is_left_out(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    runs = comparison(tmp_path)
    change(place(tmp_path, "ge", 1, runs) / "result.json", **changes)
    found = read(tmp_path)
    (notice,) = [each for each in found.notices if each.startswith("ge (seed 1): ")]
    assert reason in notice
    assert [len(row.results) for row in found.rows if row.entry.label == "ge"] == [1]


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    for run in comparison(tmp_path):
        path = tmp_path / "runs" / run.name / "result.json"
        held = json.loads(path.read_text())
        del held["right"], held["operations"]
        path.write_text(json.dumps(held))
    found = read(tmp_path)
    assert {held.state for held in found.runs} == {"finished"}
    assert {row.cost for row in found.rows} == {None}
    assert "cost" not in results_table(found.rows, found.modalities).columns


def test_costs_are_those_of_seeds_that_joint_training_has_too(tmp_path: Path) -> None:
    """Means of operations; of a row with a grid those of the value that was chosen."""
    spent = {"joint": [2e9, 4e9], "ge": [3e9, 3e9], "ensemble": [9e9, None]}
    for run in comparison(tmp_path):
        if run.label in spent:
            path = tmp_path / "runs" / run.name / "result.json"
            change(path, operations=spent[run.label][run.seed])
    found = read(tmp_path)
    costs = {row.entry.label: row.cost for row in found.rows}
    assert (costs["joint"], costs["ge"], costs["ensemble"], costs["ogm"]) == (1, 1, 3, None)
    page = results_table(found.rows, found.modalities)
    place = page.columns.index("cost")
    shown = {row[0].text: row[place].text for row in page.rows}
    assert (shown["joint"], shown["ensemble"], shown["multi-loss"]) == ("1.0", "3.0", "")
    printed, *_ = for_terminal(found.rows, found.modalities, 80)
    assert [str(column.header) for column in printed.columns][3] == "cost"
    assert [*printed.columns[3].cells][[*printed.columns[0].cells].index("ensemble")] == "3.0"
    assert "| cost |" in markdown(found.rows, found.modalities).splitlines()[0]


def test_metrics_that_are_no_numbers_are_said_once_and_shown(tmp_path: Path) -> None:
    runs = comparison(tmp_path)
    for seed in (0, 1):
        path = place(tmp_path, "ge", seed, runs) / "result.json"
        change(path, test__macro_f1=float("nan"))
        found = json.loads(path.read_text())
        found["history"][1]["val/loss"] = float("nan")
        found["history"][0]["train/ratio/gyroscope"] = float("nan")  # as where one has no gradient
        path.write_text(json.dumps(found))
    results = read(tmp_path)
    assert [each for each in results.notices if "not a number" in each] == [
        "ge (seed 0), ge (seed 1): val/loss is not a number in epoch 2.",
        "ge (seed 0), ge (seed 1): test/macro_f1 is not a number.",
    ]
    table = results_table(results.rows, MODALITIES)
    (row,) = [row for row in table.rows if row[0].text == "ge"]
    assert row[table.columns.index("macro-F1")].text == "not a number"
    assert row[table.columns.index("accuracy")].text != "not a number"


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_without_a_plan_the_results_speak(tmp_path: Path, text: str | None) -> None:
    comparison(tmp_path)
    if text is None:
        (tmp_path / "comparison.json").unlink()
    else:
        (tmp_path / "comparison.json").write_text(text)
    found = read(tmp_path)
    assert found.modalities == MODALITIES
    assert (found.data, found.fingerprint) == ("watch", "0123456789ab")
    assert sorted(labels(found)) == sorted(entry.label for entry in JOB)
    assert any(each.startswith("comparison.json: ") for each in found.notices)


def test_software_that_differs_is_said(tmp_path: Path) -> None:
    runs = comparison(tmp_path)
    change(place(tmp_path, "ge", 1, runs) / "result.json", versions={"torch": "2.9"})
    assert any("1 with torch 2.9" in each for each in read(tmp_path).notices)


def test_states_come_from_the_files(tmp_path: Path) -> None:
    entries = [Entry("joint", "joint"), Entry("ge", "ge"), Entry("pmr", "pmr")]
    runs = comparison(tmp_path, entries=entries, plan=True, left=["joint", "ge", "pmr"])
    failed, training, gone = (tmp_path / "runs" / run.name for run in runs[:3])
    for folder in (failed, training, gone):
        folder.mkdir(parents=True)
    (failed / "failed.json").write_text("{}")
    note(training, 2)

    def states() -> list[str]:
        return [held.state for held in read(tmp_path).runs]

    before = files_of(tmp_path)
    assert states() == ["failed", "broken off", "broken off", *["not begun"] * 3]
    assert files_of(tmp_path) == before, "a reader leaves nothing behind"
    with locked(tmp_path / HOLD, "held"):  # by whoever is at the comparison
        assert states() == ["failed", "training", "broken off", "waiting", "waiting", "waiting"]
    assert states()[1] == "broken off"


@pytest.mark.parametrize("text", ["{", "7", "[7]", '[{"label": "x"}]', '[{"label": 1}]'])
def test_a_plan_that_is_none_is_done_without(tmp_path: Path, text: str) -> None:
    comparison(tmp_path)
    (tmp_path / "plan.json").write_text(text)
    assert len(read(tmp_path).rows) == len(JOB)


def test_the_database_of_an_earlier_version_is_no_matter(tmp_path: Path) -> None:
    comparison(tmp_path)
    (tmp_path / "study.db").write_bytes(b"SQLite format 3\x00 and no more")
    assert len(read(tmp_path).rows) == len(JOB)


def test_a_run_of_the_plan_leads_nowhere_else(tmp_path: Path) -> None:
    comparison(tmp_path / "results", plan=True)
    path = tmp_path / "results" / "plan.json"
    outside = Run("../../../secret", "joint", {}, 0)
    path.write_text(json.dumps([*json.loads(path.read_text()), asdict(outside)]))
    secret = tmp_path / "results" / "runs" / outside.name
    secret.resolve().mkdir(parents=True, exist_ok=True)
    result(outside, MODALITIES).save(secret.resolve() / "result.json")
    assert not [label for label in labels(read(tmp_path / "results")) if "secret" in label]


def test_a_single_run_is_read(tmp_path: Path) -> None:
    run = Run("ge", "ge", {}, 3)
    result(run, MODALITIES).save(tmp_path / "result.json")
    (tmp_path / "run.json").write_text(
        json.dumps({"data": "watch", "method": "GE(x=1)", "modalities": MODALITIES, "settings": {}})
    )
    found = read(tmp_path)
    assert not found.comparison
    assert [held.state for held in found.runs] == ["finished"]
    assert found.notices == []
    (tmp_path / "result.json").unlink()
    assert "no result" in " ".join(read(tmp_path).notices)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds neither"):
        read(tmp_path)
    with pytest.raises(SetupError, match="found nothing"):
        read(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="found a file"):
        read(tmp_path / "file")


def test_standing_needs_pairs_and_an_interval_without_0(tmp_path: Path) -> None:
    entries = [
        Entry("joint", "joint"),
        Entry("ge", "ge"),
        Entry("pmr", "pmr"),
        Entry("a alone", "unimodal", {"modality": "a"}),
    ]
    runs = comparison(tmp_path, ("a", "b"), entries, range(5))
    for run in runs:
        path = tmp_path / "runs" / run.name / "result.json"
        accuracy = {"joint": 0.5, "ge": 0.6, "pmr": 0.4, "a alone": 0.3}[run.label]
        change(path, test__accuracy=accuracy + 0.001 * run.seed)
    rows = read(tmp_path).rows
    found = {row.entry.label: standing(row) for row in rows}
    assert found == {
        "joint": "reference",
        "ge": "better",
        "pmr": "worse",
        "a alone": "one modality",
    }
    shutil.rmtree(place(tmp_path, "ge", 4, runs))
    rows = read(tmp_path).rows
    assert next(standing(row) for row in rows if row.entry.label == "ge") == "too few seeds (4)"


def test_labels_that_end_like_an_option_are_whole_without_the_plan(tmp_path: Path) -> None:
    """Names of folders spell the options that were chosen among: ``rate`` is none of OGM's."""
    entries = [
        Entry("joint", "joint"),
        *(Entry(f"my rate {n}", "ogm", grid={"alpha": (0.1, 0.3)}) for n in (1, 2)),
        Entry("fold 3", "multi-loss"),
    ]
    for run in comparison(tmp_path, entries=entries):
        kind = available()[run.method].__name__
        about = {"method": f"{kind}()", "modalities": list(MODALITIES)}
        (tmp_path / "runs" / run.name / "run.json").write_text(json.dumps(about))
    found = read(tmp_path)
    assert sorted(labels(found)) == ["fold-3", "joint", "my-rate-1", "my-rate-2"]
    assert {row.entry.method for row in found.rows} == {"joint", "ogm", "multi-loss"}
    grids = {row.entry.label: row.entry.grid for row in found.rows}
    assert grids["my-rate-1"] == {"alpha": (0.1, 0.3)}
    assert grids["fold-3"] == {}
