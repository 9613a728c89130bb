"""What --json prints: one object, whose keys are those of docs/json.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import equimodal as eq
from equimodal.cli import main
from equimodal.compare.runs import Entry
from equimodal.diagnostics.advice.diagnosis import Diagnosis
from support.reports import change, comparison

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
ROW = {
    "row", "method", "options", "seeds", "seeds_missing", "validation_accuracy", "test_accuracy",
    "test_macro_f1", "against_joint", "against_joint_other_samples", "modalities", "cost",
}  # fmt: skip
SHARED = {
    "format",
    "kind",
    "folder",
    "data",
    "fingerprint",
    "modalities",
    "verdict",
    "rows",
}
COMPARISON = {*SHARED, "seeds", "runs_planned", "runs_missing", "failed", "diverged", "left_out"}
REPORT = {*SHARED, "runs", "page", "figures", "notices"}
METHOD = {
    "name", "class", "summary", "source", "needs", "teachers", "modalities_most", "extra_forwards",
    "extra_backwards", "accumulation", "ranks", "autocast", "compiled", "sharded", "options",
}  # fmt: skip
ENTRY = """
from equimodal.testing import SmallModel, batch

def model():
    made = SmallModel().double()
    return {
        "model": made, "encoders": dict(made.encoders.items()), "head": made.head,
        "train_loader": [batch(60)], "loader": [batch(120, seed=2)],
        "alone": {"audio": 0.6, "visual": 0.7},
    }
"""


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(list(command)) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found.get("format") == 1
    return dict(found)


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "methods", "--json")
    assert {each["name"] for each in found["methods"]} == set(eq.methods.available())
    assert all(set(each) == METHOD for each in found["methods"])
    (umt,) = printed(capsys, "methods", "umt", "--json")["methods"]
    assert umt["teachers"] is True
    assert umt["class"].endswith(".UMT")
    assert main(["methods", "umtt", "--json"]) == 2
    assert "did you mean 'umt'" in capsys.readouterr().err


def test_a_comparison_says_the_same_from_its_command_and_from_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "mfeat", "--modalities=[pix, mor]", "--epochs=1", "--batch-size=400"]
    command += ["--seeds=1", "--workers=1", "--rows=[joint]", f"--out={tmp_path}", "--json"]
    found = printed(capsys, *command)
    assert set(found) == COMPARISON
    assert (found["kind"], found["seeds"], found["runs_missing"]) == ("comparison", [0], 0)
    (row,) = found["rows"]
    assert set(row) == ROW
    assert (row["row"], row["cost"], row["against_joint"]) == ("joint", 1.0, None)
    assert row["test_accuracy"]["low"] is None, "of one seed"
    (path,) = tmp_path.glob("runs/*/result.json")
    assert row["test_accuracy"]["values"] == [json.loads(path.read_text())["test"]["accuracy"]]
    again = printed(capsys, "report", str(tmp_path), "--json")
    assert set(again) == REPORT
    assert again["rows"] == found["rows"]
    assert again["runs"] == [{"row": "joint", "seed": 0, "state": "finished"}]
    assert Path(again["page"]).exists()


def test_a_report_of_a_damaged_study_is_json_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [Entry("joint", "joint"), Entry("ge", "ge")]
    for run in comparison(tmp_path, entries=entries, seeds=range(3), plan=True):
        if (run.label, run.seed) == ("ge", 1):
            path = tmp_path / "runs" / run.name / "result.json"
            change(path, test__macro_f1=float("nan"), val__macro_f1=float("nan"))
    found = printed(capsys, "report", str(tmp_path), "--json")
    _, ge = found["rows"]
    assert ge["test_macro_f1"]["mean"] is None
    assert ge["test_macro_f1"]["values"][1] is None
    versus = ge["against_joint"]
    assert versus["low"] < versus["mean"] < versus["high"]
    assert found["notices"]


def test_a_diagnosis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modelled.py").write_text(ENTRY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = printed(capsys, "diagnose", "modelled:model", "--out=here", "--json")
    assert found["alone"]["audio"] == {"value": pytest.approx(0.6), "low": None, "high": None}
    assert Diagnosis.from_dict(found).modalities == ("audio", "visual")
    assert json.loads((tmp_path / "here" / "diagnosis.json").read_text()) == found


def test_every_key_is_documented() -> None:
    told = set(re.findall(r"`(\w+)`", DOCS.read_text()))
    for keys in (ROW, COMPARISON, REPORT, METHOD):
        assert keys <= told, keys - told
