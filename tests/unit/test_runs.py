"""equimodal runs: every kind of folder, in every state, is named with what came out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from equimodal.cli import main
from equimodal.tasks import HOLD, locked
from support.reports import comparison


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A comparison, one without two of its runs, single runs, a choice, and what is not ours."""
    runs = comparison(tmp_path / "b" / "whole", plan=True)
    some = comparison(tmp_path / "a", plan=True)
    for each in some[:2]:
        shutil.rmtree(tmp_path / "a" / "runs" / each.name)
    one = tmp_path / "b" / "one"
    shutil.copytree(tmp_path / "b" / "whole" / "runs" / runs[0].name, one)
    (one / "run.json").write_text(json.dumps({"data": "watch", "method": "Joint()"}))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text(json.dumps({"data": "mfeat"}))
    (tmp_path / "choice").mkdir()
    (tmp_path / "choice" / "choosing.json").write_text(json.dumps({"build": "mine:build"}))
    (tmp_path / "choice" / "runs" / "arl").mkdir(parents=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "dataset.json").write_text(json.dumps({"name": "grid"}))
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "run.json").write_text("{}")
    (tmp_path / "other").mkdir()
    return tmp_path


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    assert main(["runs", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["kind"]) == (1, "runs")
    return {str(Path(each["folder"]).relative_to(folder)): each for each in found["runs"]}


def test_each_folder_is_listed_once_with_its_state(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(folder, capsys)
    states = {name: (each["kind"], each["data"], each["state"]) for name, each in found.items()}
    assert states.pop("broken")[0] in ("train", "damaged")
    whole = json.loads((folder / "a" / "plan.json").read_text())
    many = len(whole["runs"] if isinstance(whole, dict) else whole)
    assert states == {
        "a": ("compare", "watch", f"{many - 2} of {many}"),
        "b/one": ("train", "watch", "finished"),
        "b/whole": ("compare", "watch", "finished"),
        "begun": ("train", "mfeat", "broken off"),
        "choice": ("choose", "mine:build", "broken off"),
        "prepared": ("prepare", "grid", "finished"),
    }
    assert found["b/one"]["result"].endswith("%")
    assert not found["begun"]["result"]


def test_the_best_row_is_that_of_validation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores: dict[str, list[float]] = {}
    for path in (folder / "b" / "whole" / "runs").glob("*/result.json"):
        label = path.parent.name.partition("-seed-")[0]
        scores.setdefault(label, []).append(json.loads(path.read_text())["val"]["accuracy"])
    best = max(sum(of) / len(of) for of in scores.values())
    assert listed(folder, capsys)["b/whole"]["result"].endswith(f" {best:.1%}")


def test_what_is_at_work_and_what_was_chosen_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "choice" / "choice.json").write_text(json.dumps({"method": "arl"}))
    with locked(folder / "begun" / HOLD, ""):
        found = listed(folder, capsys)
    assert found["begun"]["state"] == "at work"
    assert (found["choice"]["state"], found["choice"]["result"]) == ("finished", "arl")


def test_a_terminal_of_80_columns_shows_whole_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["folder", "by", "data", "state", "result"]
    deep = folder / "other" / ("long-" * 14)
    shutil.copytree(folder / "b" / "one", deep)
    assert main(["runs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"other/{deep.name}" in lines


def test_nothing_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"No results of equimodal in {tmp_path}")
    assert main(["runs", str(tmp_path / "not")]) == 2
    assert "expected a folder, found nothing" in capsys.readouterr().err
