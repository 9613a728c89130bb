"""What a command says is true, can be pasted, and names what to do, as a new user sees it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equimodal as eq
from equimodal.cli import main
from equimodal.tasks import lock as locks

QUICK = ["--modalities=pix,mor", "--epochs=2", "--batch-size=400", "--method=joint"]
HOLDER = """
import sys
from pathlib import Path
from equimodal.tasks import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def saved(path: Path, *, classes: int = 2, **changes: Any) -> Path:
    """A file of two vectors per sample; a change is an array in place of another, or None."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 40), ("test", 20)):
        target = np.arange(count) % classes
        arrays[f"y_{split}"] = target
        for name in ("audio", "video"):
            arrays[f"{name}_{split}"] = rng.normal(size=(count, 4)) + target[:, None]
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    np.savez(path, **arrays)
    return path


def said(capsys: pytest.CaptureFixture[str], *command: str, status: int = 2) -> str:
    """What a command that does not work prints, without its progress."""
    assert main(command) == status
    return "\n".join(
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("epoch ")
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:the unimodal loss")
def test_a_run_that_diverges_says_so_everywhere(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "mfeat", *QUICK, "--lr=1e12"]
    message = said(capsys, *command, "--out=run", status=1)
    assert re.fullmatch(
        r"equimodal: the run has diverged: the (training|validation) loss is (NaN|infinite) since "
        r"epoch \d; try a lower --lr",
        message,
    )
    assert not (here / "run" / "result.json").exists()
    assert "diverged" in json.loads((here / "run" / "failed.json").read_text())["message"]
    assert main(["report", "run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "This run has diverged" in shown
    assert "loss is" in shown
    assert main(["train", "mfeat", *QUICK, "--out=run", "--lr=0.05"]) == 0, "nothing is in its way"
    assert not (here / "run" / "failed.json").exists()


@pytest.mark.filterwarnings("ignore:the unimodal loss")
def test_a_comparison_names_the_runs_that_diverge(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "mfeat", "--modalities=pix,mor", "--epochs=1", "--batch-size=400"]
    command += ["--rows=[joint]", "--seeds=1", "--workers=1", "--lr=1e12", "--out=study"]
    message = said(capsys, *command, status=1)
    assert "joint-seed-0" in message
    assert "failed: the run has diverged: the" in message
    assert "1 of 1 runs have diverged and are not in the table" in message
    assert main(["report", "study"]) == 0
    assert "Diverged: joint (seed 0): the" in " ".join(capsys.readouterr().out.split())


def test_data_that_nothing_can_be_learnt_from(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(here / "same.npz", audio_train=np.ones((40, 4)))
    message = said(capsys, "train", str(file), "--epochs=1")
    assert "audio is the same in all 32 training samples" in message
    assert message.endswith("leave audio out of --modalities")
    assert [path.name for path in here.iterdir()] == ["same.npz"], "nothing is left behind"


def test_classes_that_are_tested_and_never_trained_are_named(here: Path) -> None:
    file = saved(here / "new.npz", y_test=np.arange(20) % 4)
    with pytest.warns(
        eq.BalanceWarning, match=r"2 classes of the test split \(50% of it\).*: 2, 3"
    ):
        assert main(["train", str(file), "--epochs=1", "--method=joint"]) == 0


def test_a_folder_is_held_by_one_process_and_a_dead_one_holds_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    (here / "run" / "run.json").write_text("{}")
    compare = ["compare", "mfeat", "--modalities=pix,mor", "--seeds=1", "--rows=[joint]"]
    for command in (
        ["train", "mfeat", *QUICK, "--out=run"],
        ["train", "mfeat", *QUICK, "--out=run", "--resume"],
        ["diagnose", "run"],
    ):
        message = said(capsys, *command)
        assert message.startswith(f"equimodal: run: process {holder.pid} (-c run) is at work in it")
        assert message.endswith("wait for it, or name another folder with --out")
    (here / "run" / "run.json").unlink()
    assert f"process {holder.pid} (" in said(capsys, *compare, "--out=run")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert main(["train", "mfeat", *QUICK, "--out=run"]) == 0


def test_what_is_next_can_be_pasted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a first training to a page, by nothing but what each command says."""
    file = saved(here / "my data.npz")
    line = shlex.join(["equimodal", "train", str(file), "--method=joint", "--epochs=1"])
    seen = []
    while line:
        _, *command = shlex.split(line)
        seen.append(command[0])
        assert main(command) == 0
        found = re.search(r"^Next: (.*)$", capsys.readouterr().out, re.MULTILINE)
        line = found[1] if found else ""
    assert seen == ["train", "diagnose", "report"]
    run = here / "runs" / "my-data-joint-1"
    assert {"result.json", "diagnosis.json", "report.html"} <= {p.name for p in run.iterdir()}
    assert main(["train", str(file), "--method=joint", "--epochs=1"]) == 0
    assert (here / "runs" / "my-data-joint-2" / "result.json").exists()


def test_what_follows_a_comparison_can_be_pasted(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "mfeat", "--modalities=pix,mor", "--epochs=1", "--batch-size=400"]
    command += ["--rows=[joint]", "--seeds=1", "--workers=1", "--out=a study"]
    assert main(command) == 0
    found = re.search(r"^Next: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert found is not None
    _, *following = shlex.split(found[1])
    assert following == ["report", "a study"]
    assert main(following) == 0


RAGGED = np.array([np.ones(number + 1) for number in range(40)], dtype=object)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no test split": (
        {"y_test": None, "audio_test": None, "video_test": None},
        "expected a test split: arrays such as y_test, found y_train, audio_train, video_train",
    ),
    "other names": (
        {f"{n}_{s}": None for n in ("y", "audio", "video") for s in ("train", "test")} | {"x": RAGGED.size},
        "expected arrays named by modality and split, such as audio_train and y_train, found none",
    ),
    "another target": ({"y_train": None, "y_test": None}, "name the target with --target"),
    "one class": ({"y_train": np.zeros(40), "y_test": np.zeros(20)}, "two classes or more, found only 0"),
    "ragged": ({"audio_train": RAGGED}, "audio_train holds Python objects: for samples of several lengths pad"),
    "text": ({"audio_train": None, "audio_test": None, "words_train": np.full((40, 2), "a")},
             "--modalities: expected two or more, found video alone: of a file, arrays of numbers"),
    "one of each": (
        {"y_train": np.arange(40), "y_test": np.arange(20)},
        "wrong.npz: expected two samples of a class or more to hold some out for validation",
    ),
    "axes": ({"audio_train": np.ones((40, 3, 9)), "audio_test": np.ones((20, 3, 9))},
             "say so with --channels audio=1, or that there are none with --channels audio=none"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_file_that_does_not_fit_is_refused_in_options(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, what: str
) -> None:
    changes, message = WRONG[what]
    file = saved(here / "wrong.npz", **changes)
    found = said(capsys, command, str(file), "--epochs=1")
    assert message in found
    assert "pickle" not in found
    assert "=..." not in found
    assert [path.name for path in here.iterdir()] == ["wrong.npz"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train crema-d", "equimodal prepare crema-d --source RAW --out PREPARED, and then name"),
        ("train watch --method OGM-GE", "unknown method 'OGM-GE': did you mean 'ogm-ge'?"),
        ("train watch --method OGM_GE", "unknown method 'OGM_GE': did you mean 'ogm-ge'?"),
        ("train watch --method zzz", "Nearest of "),
        ("train watch --batch-size 0", "--batch-size: expected 1 or more, found 0"),
        ("train watch --method.alpha=-1", "--method.alpha: expected a number of 0 or more"),
        ("train watch --filter a=1", "--filter"),
        ("train watch --out /proc/nope/run", "--out: /proc"),
        ("compare watch --methods [mla] --rows [mlaa]", "--rows chooses among those of --methods"),
    ],
)
def test_messages_speak_of_options_and_lists_are_short(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    found = said(capsys, *command.split())
    assert message in found
    assert len(found) < 240
    assert found.count("\n") == 0


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals of this kind")
def test_an_error_is_broken_between_words_in_a_terminal(here: Path) -> None:
    master, terminal = os.openpty()
    subprocess.run(
        [sys.executable, "-m", "equimodal", "train", "watch", "--method", "zzz"],
        stderr=terminal,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "40"},
        check=False,
    )
    os.close(terminal)
    lines = os.read(master, 4096).decode().splitlines()
    os.close(master)
    assert 1 < len(lines) <= 4
    assert all(len(line) < 40 for line in lines)
