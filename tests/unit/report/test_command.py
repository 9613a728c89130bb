"""The command on the page is one that repeats the results, or there is none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from equimodal.cli import compare as compare_command
from equimodal.cli import main
from equimodal.compare import Comparison
from equimodal.compare.runs import Entry, Run, entry_of, main_job, with_rates
from equimodal.methods import find
from equimodal.report.command import command_of
from equimodal.report.results import read
from support.reports import comparison, result, settings

MODALITIES = ("accelerometer", "gyroscope")
JOB = main_job(MODALITIES, (0.1, 0.3))


def made(name: str) -> Entry:
    return entry_of(name, find(name.split("+")[0]), MODALITIES, 6)


def planned_by(command: str, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """Return the comparison that a command would run."""
    caught: list[Comparison] = []

    def catch(comparison: Comparison, options: Any, left_out: Any) -> int:
        caught.append(comparison)
        return 0

    monkeypatch.setattr(compare_command, "_compare", catch)
    first, *arguments = shlex.split(command)
    assert first == "equimodal"
    assert main(arguments) == 0
    return caught[0]


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize(
    ("entries", "changes", "expected"),
    [
        (JOB, {}, "equimodal compare watch --seeds=2 '--alphas=[0.1, 0.3]'"),
        (JOB[3:5], {"epochs": 3}, "--epochs=3"),
        ([*JOB, Entry("pmr", "pmr")], {"lr": 0.01}, "--lr=0.01"),
        ([Entry("joint", "joint"), Entry("pmr", "pmr"), Entry("mla", "mla")], {}, "--methods=["),
        ([JOB[1], JOB[3], Entry("pmr", "pmr")], {"optimizer": "adamw"}, "--optimizer=adamw"),
        ([JOB[3], made("mslr"), made("umt")], {}, "'--methods=[mslr, umt]'"),
        ([JOB[3], made("ogm+multi-loss")], {}, "'--methods=[ogm+multi-loss]'"),
        ([with_rates(e, (0.01, 0.1)) for e in JOB], {}, "'--lr=[0.01, 0.1]'"),
    ],
)
def test_it_runs_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan: bool,
    entries: list[Entry],
    changes: dict[str, Any],
    expected: str,
) -> None:
    runs = comparison(tmp_path / "a folder", MODALITIES, entries, plan=plan, **changes)
    command, remark = command_of(read(tmp_path / "a folder"))
    assert expected in command
    assert remark == ""
    command, _, out = command.rpartition(" --out ")
    assert shlex.split(out) == [str(tmp_path / "a folder")]
    again = planned_by(f"{command} --out {tmp_path / 'again'}", monkeypatch)
    assert sorted(run.name for run in again.runs) == sorted(run.name for run in runs)
    held = json.loads((tmp_path / "a folder" / "comparison.json").read_text())
    assert held["settings"] == again.claim.plan["settings"]


def test_what_depends_on_the_epochs_is_known_by_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = comparison(tmp_path / "a", MODALITIES, [JOB[3], made("g2d")], plan=True, epochs=6)
    command, _ = command_of(read(tmp_path / "a"))
    again = planned_by(f"{command.rpartition(' --out ')[0]} --out {tmp_path / 'b'}", monkeypatch)
    assert sorted(run.name for run in again.runs) == sorted(run.name for run in runs)


def test_some_modalities_are_named(tmp_path: Path) -> None:
    comparison(tmp_path, ("pix", "mor"), main_job(("pix", "mor"), (0.1,)), data="mfeat")
    assert "--modalities=[pix, mor]" in shlex.split(command_of(read(tmp_path))[0])


def test_a_file_is_left_to_the_reader(tmp_path: Path) -> None:
    comparison(tmp_path, ("lips", "voice"), main_job(("lips", "voice"), (0.1,)), data="grid words")
    command, remark = command_of(read(tmp_path))
    assert command.startswith("equimodal compare DATASET ")
    assert "grid words" in remark
    assert "0123456789ab" in remark


@pytest.mark.parametrize(
    ("entries", "seeds"),
    [
        (JOB, [3, 4]),
        ([*JOB, Entry("mine", "pmr", {"temperature": 2})], [0, 1]),
        ([*JOB[:-1], Entry("ogm-ge", "ogm-ge", grid={"alpha": (0.5,)})], [0, 1]),
    ],
)
def test_what_no_command_makes_has_none(
    tmp_path: Path, entries: list[Entry], seeds: list[int]
) -> None:
    comparison(tmp_path, MODALITIES, entries, seeds, plan=True)
    command, remark = command_of(read(tmp_path))
    assert command == ""
    assert "from Python" in remark


@pytest.mark.parametrize(
    ("method", "head", "expected"),
    [
        ("OGMGE(alpha=0.3, floor=0.0)", "Concat", "--method=ogm-ge"),
        (
            "OGMGE(alpha=0.7, floor=0.1)",
            "FiLM",
            "--method=ogm-ge --method.alpha=0.7 --method.floor=0.1 --fusion=film",
        ),
        ("Joint()", "Concat", "--method=joint"),
        ("UMT(weight=10.0)", "Concat", "--method=umt"),
        (
            "G2D(gating=(0, 12), logits=2.0)",
            "Concat",
            "--method=g2d '--method.gating=[0, 12]' --method.logits=2.0",
        ),
    ],
)
def test_a_run_is_trained_again(tmp_path: Path, method: str, head: str, expected: str) -> None:
    about = {
        "data": "watch", "method": method, "modalities": MODALITIES, "model": {"head": head},
        "settings": settings("watch", epochs=3) | {"seed": 2},
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(about))
    result(Run("x", "x", {}, 2), MODALITIES).save(tmp_path / "result.json")
    command, _ = command_of(read(tmp_path))
    assert command == f"equimodal train watch {expected} --epochs=3 --seed=2 --out {tmp_path}"


def test_where_a_run_has_its_data_from_is_kept(tmp_path: Path) -> None:
    about = {
        "data": "grid [slot=3]", "method": "Joint()", "modalities": ["lips", "voice"],
        "model": {"lips": "ResNet18", "voice": "MLP"}, "settings": settings("grid") | {"seed": 0},
        "source": {"name": "/a b/grid.npz", "options": {"where": {"slot": [3, 4]}, "groups": "who"}},
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(about))
    command, remark = command_of(read(tmp_path))
    assert shlex.split(command)[2:-2] == [
        "/a b/grid.npz", "--modalities=[lips, voice]", "--filter=slot=3|4", "--groups=who",
        "--method=joint", "--encoder=resnet18",
    ]  # fmt: skip
    assert remark == ""
    about["source"]["options"] = {"channels": {"voice": None, "lips": 0}, "frames": 3, "size": 112}
    (tmp_path / "run.json").write_text(json.dumps(about))
    assert shlex.split(command_of(read(tmp_path))[0])[3:6] == [
        "--modalities=[lips, voice]", "--channels=voice=none,lips=0", "--view=frames=3,size=112",
    ]  # fmt: skip
    about["source"]["options"] = {"where": ["slot"], "frames": 3}
    (tmp_path / "run.json").write_text(json.dumps(about))
    assert shlex.split(command_of(read(tmp_path))[0])[2] == "DATASET"


@pytest.mark.parametrize("method", ["OGM() + GE()", "Theirs()", "__import__('os')", "OGM(", ""])
def test_methods_that_no_option_spells_have_no_command(tmp_path: Path, method: str) -> None:
    about = {"data": "watch", "method": method, "modalities": MODALITIES, "settings": {}}
    (tmp_path / "run.json").write_text(json.dumps(about))
    result(Run("x", "x", {}, 2), MODALITIES).save(tmp_path / "result.json")
    assert command_of(read(tmp_path))[0] == ""
