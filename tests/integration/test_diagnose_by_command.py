"""equimodal diagnose, on runs of equimodal train and on models of one's own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import equimodal as eq
from equimodal import data
from equimodal.cli import main
from equimodal.cli.comparing import comparing
from equimodal.cli.parser import Parser
from equimodal.cli.source import add_data, source_of
from equimodal.diagnostics.advice.diagnosis import Diagnosis
from equimodal.nn import MLP, Concat, Multimodal
from equimodal.report.findings import read
from equimodal.training import Settings, fit

ENTRY = """
import torch
from equimodal.testing import SmallModel, batch

def model():
    torch.manual_seed(0)
    made = SmallModel().double()
    return {
        "model": made,
        "encoders": dict(made.encoders.items()),
        "head": made.head,
        "loader": [batch(120, seed=2)],
    }
"""


OWN = """
def untrained_head():
    made = model()
    optimizer = torch.optim.SGD(made["model"].parameters(), lr=0.01)
    train, val = [batch(200)], [batch(200, seed=2)]
    for _ in range(40):
        torch.nn.functional.cross_entropy(made["model"](*train[0][:-1]), train[0][-1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    def alone(subject, train_loader, loader):
        from equimodal.diagnostics import alone
        def adam(parameters):
            return torch.optim.Adam(parameters, 0.03)
        return alone(subject, train_loader, loader, loader, adam, 30)
    del made["loader"]
    return {
        **made, "optimizer": optimizer, "train": train, "val": val, "alone": alone,
        "test": [batch(100, seed=3)], "epochs": 1,
    }
"""


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on watch."""
    folder = tmp_path_factory.mktemp("watch") / "run"
    assert main(["train", "watch", "--method=joint", "--epochs=4", f"--out={folder}"]) == 0
    return folder


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory from which modules are imported, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    # Its own alone: other modules that were imported meanwhile know each other.
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def diagnosed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["diagnose", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["diagnose", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    message = err.strip().splitlines()[-1]
    assert message.startswith("equimodal: ")
    return message


# ------------------------------------------------------------------ runs


def test_a_run_is_diagnosed_and_the_gyroscope_named(
    watch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = diagnosed(capsys, str(watch), f"--out={tmp_path}")
    found = Diagnosis.from_dict(json.loads((tmp_path / "diagnosis.json").read_text()))
    assert printed.startswith(str(found))
    assert found.split == "val"
    assert found.samples == 1002
    assert found.classes == data.load("watch").classes
    assert found.leading == "accelerometer"
    assert found.behind["gyroscope"].low > 0, "parity is excluded"
    assert found.read["gyroscope"].accuracy.high < found.read["accelerometer"].accuracy.low
    assert found.read["gyroscope"].tells, "so is chance"
    assert found.alone is not None
    assert found.gap is not None
    assert found.together is not None
    assert found.curves is not None
    assert len(found.curves["accuracy"]["gyroscope"]) == 4
    assert "gyroscope" in " ".join(each.text for each in found.advice.because)
    assert not read(tmp_path / "diagnosis.json").notices


def test_it_is_the_model_of_the_best_epoch(watch: Path, tmp_path: Path) -> None:
    result = json.loads((watch / "result.json").read_text())
    for split in ("val", "test"):
        out = tmp_path / split
        assert main(["diagnose", str(watch), "--no-alone", "--split", split, f"--out={out}"]) == 0
        found = Diagnosis.from_dict(json.loads((out / "diagnosis.json").read_text()))
        assert found.accuracy.value == pytest.approx(result[split]["accuracy"], abs=1e-6)
        assert found.split == split
        assert (found.notes == ()) is (split == "test")
        assert found.alone is None
        assert found.advice is not None
        assert found.advice.verdict == "cannot tell"


def test_the_lips_are_named_on_spoken_letters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(os.environ.get("EQUIMODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    words, run = folder / "grid_words.npz", tmp_path / "run"
    if not words.exists():
        pytest.skip(f"{words} is not here: set EQUIMODAL_DATA to the folder that holds it")
    command = ["train", str(words), "--filter", "slot=3", "--groups", "utt", "--method", "joint"]
    command += ["--encoder", "plain", "--epochs", "30", "--lr", "0.1", "--out", str(run)]
    assert main(command) == 0
    assert main(["diagnose", str(run), "--no-alone", "--out", str(run)]) == 0
    found = json.loads((run / "diagnosis.json").read_text())
    assert found["advice"]["ignored"] == ["video"]
    lips, sound = found["read"]["video"]["accuracy"], found["read"]["audio"]["accuracy"]
    assert lips["low"] < 2 * found["chance"] < sound["low"]
    assert not found["read"]["video"]["tells"]
    shapley = found["shapley"]["mean"]
    assert shapley["video"]["high"] < 0.1 < 0.3 < shapley["audio"]["low"]


def npz(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for split, size in (("train", 240), ("test", 200)):
        target = np.tile([0, 1, 2, 3], size // 4)
        letters = np.array(["p", "q"])[np.arange(size) % 3 % 2]
        arrays |= {f"y_{split}": target, f"kind_{split}": letters}
        for name, noise in (("sound", 0.5), ("sight", 1.0)):
            noisy = rng.normal(0, noise, (size, 4)) + np.eye(4)[target]
            arrays[f"{name}_{split}"] = noisy.astype(np.float32)
    np.savez(path, **arrays)
    return path


def test_a_run_on_a_file_finds_it_again_or_says_that_it_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = npz(tmp_path / "four.npz"), tmp_path / "run"
    options = ["--filter=kind=p", "--validation=0.4"]
    train = ["train", str(file), *options, "--method=joint", "--epochs=2", "--lr=0.05"]
    assert main([*train, f"--out={run}"]) == 0
    capsys.readouterr()
    assert "4 classes" in diagnosed(capsys, str(run))
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / file.name)  # whose name is in the fingerprint
    assert f"no longer at {file}" in refused(capsys, str(run))
    npz(file, seed=1)
    assert "give the same data and options" in refused(capsys, str(run))
    assert "give the same data" in refused(capsys, str(run), str(moved), "--validation=0.4")
    held = json.loads((run / "run.json").read_text())
    assert "4 classes" in diagnosed(capsys, str(run), str(moved), *options, "--no-alone")
    assert held["source"]["options"] == {"where": {"kind": ["p"]}, "validation": 0.4}
    train[1] = str(moved)
    assert main([*train, f"--out={run}", "--resume"]) == 0, "data may move before resuming"


def test_the_command_that_is_advised_describes_the_same_data(tmp_path: Path) -> None:
    options = {
        "where": {"kind": ["p", "q"]}, "groups": "kind", "validation": 0.3, "target": "y",
        "channels": {"sound": None}, "modalities": ["sight", "sound"],
    }  # fmt: skip
    file = npz(tmp_path / "four.npz")
    source = data.Source(str(file), options)
    splits = data.load(file)
    command = comparing(source, splits, Settings(epochs=3, lr=0.2, seed=4).suited("four"), "plain")
    assert command.startswith(f"equimodal compare {file} ")
    assert command.endswith(" --encoder=plain --epochs=3 --lr=0.2 --seeds=5")
    parser = Parser("compare", "")
    add_data(parser)
    words = [w for w in shlex.split(command)[2:] if not w.startswith(("--e", "--lr", "--seeds"))]
    again = source_of(parser.read(words))
    assert again.name == str(file)
    assert dict(again.options) == options


def test_advice_ends_in_a_line_that_can_be_pasted(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a diagnosis without encoders alone, to one with them, to a comparison."""
    npz(there / "my data.npz")
    train = ["train", "my data.npz", "--validation=0.5", "--method=joint", "--lr=0.01"]
    assert main([*train, "--epochs=2", "--out=a run"]) == 0
    capsys.readouterr()

    def advised(*command: str) -> list[str]:
        assert main(list(command)) == 0
        printed = capsys.readouterr().out.split("\n\n")
        (advice,) = [each for each in printed if each.startswith("Advice: ")]
        name, *words = shlex.split(advice.splitlines()[-1])
        assert name == "equimodal"
        return words

    again = advised("diagnose", "a run", "--no-alone")
    assert again == ["diagnose", "a run"]
    command = advised(*again)
    file = there / "my data.npz"
    assert command[:5] == ["compare", str(file), "--validation=0.5", "--epochs=2", "--lr=0.01"]
    assert main([*command, "--seeds=1", "--workers=1", "--rows=[joint,arl]", "--out=study"]) == 0
    table = (there / "study" / "table.md").read_text()
    assert "| joint |" in table
    assert "| arl |" in table


def test_advice_on_a_model_of_ones_own_asks_choosing(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line is run with a budget that it refuses, once it knows the function and all methods."""
    (there / "mine.py").write_text(ENTRY + OWN)
    printed = diagnosed(capsys, "mine:untrained_head")
    name, *command = shlex.split(printed.rstrip().splitlines()[-1])
    assert (name, *command[:2]) == ("equimodal", "choose", "mine:untrained_head")
    assert main([*command, "--budget=1", "--workers=1"]) == 2
    assert "--budget: expected" in capsys.readouterr().err


def test_folders_that_hold_no_finished_run_of_the_joint_head_are_refused(
    watch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "found nothing" in refused(capsys, str(tmp_path / "none"))
    assert "no run.json" in refused(capsys, str(tmp_path))
    unfinished = Path(shutil.copytree(watch, tmp_path / "unfinished"))
    (unfinished / "result.json").unlink()
    assert "not finished" in refused(capsys, str(unfinished))
    held = json.loads((watch / "run.json").read_text())
    for method, expected in (
        ("Ensemble()", "ensemble predicts by a rule of its own"),
        ("OGM(alpha=0.3) + MLA()", "mla predicts by a rule of its own"),
    ):
        other = Path(shutil.copytree(watch, tmp_path / method[:3]))
        (other / "run.json").write_text(json.dumps({**held, "method": method}))
        assert expected in refused(capsys, str(other))
    without = Path(shutil.copytree(watch, tmp_path / "without"))
    (without / "checkpoints" / "best.ckpt").unlink()
    assert "best.ckpt is missing" in refused(capsys, str(without))
    (tmp_path / "comparison.json").write_text("{}")
    assert "holds a comparison" in refused(capsys, str(tmp_path))
    assert "--filter: expected a data set" in refused(capsys, str(watch), "--filter=a=b")


def test_a_run_of_an_older_version_finds_embedded_data(
    watch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Path(shutil.copytree(watch, tmp_path / "old"))
    held = json.loads((old / "run.json").read_text())
    del held["source"]
    (old / "run.json").write_text(json.dumps(held))
    assert "1,002 samples of val watch" in diagnosed(capsys, str(old), "--no-alone")
    held["data"] = "mine"
    (old / "run.json").write_text(json.dumps(held))
    assert "the data, mine, is not noted" in refused(capsys, str(old))


def test_a_model_that_was_made_in_python_needs_a_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, run = data.load("synthetic"), tmp_path / "run"
    encoders = {name: MLP(16, hidden=(7,), features=8) for name in splits.modalities}
    model = Multimodal(encoders, Concat(dict.fromkeys(splits.modalities, 8), 6))
    fit(splits, eq.Joint(), Settings(epochs=1), model, out=run, tensorboard=False)
    assert "has a model of its own" in refused(capsys, str(run))


# ------------------------------------------------------------------ a model of one's own


def test_a_model_of_ones_own_is_diagnosed(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (there / "mine.py").write_text(ENTRY)
    printed = diagnosed(capsys, "mine:model", "--out=found")
    assert printed.startswith("SmallModel: 120 samples, 3 classes")
    found = Diagnosis.from_dict(json.loads((there / "found" / "diagnosis.json").read_text()))
    assert found.modalities == ("audio", "visual")
    assert found.probes is None


EVERYTHING = """
from dataclasses import dataclass, field
from functools import partial
from typing import Any
import torch
import mine
from equimodal.diagnostics.encoders.alone import alone
from equimodal.testing import batch

@dataclass
class Entry:
    model: Any
    encoders: Any
    head: Any
    loader: Any
    train_loader: Any = field(default_factory=lambda: [batch(60), batch(60, seed=1)])
    forward: Any = staticmethod(lambda model, batch: (model(*batch[:-1]), batch[-1]))
    criterion: Any = torch.nn.functional.cross_entropy
    classes: Any = ("one", "two", "three")
    name: str = "mine"
    data: str = "noise"
    alone: Any = None

def train_alone(subject, train_loader, loader):
    return alone(
        subject, train_loader, [batch(60, seed=4)], loader,
        lambda parameters: torch.optim.Adam(parameters, 0.03), 5,
    )

def trains():
    return Entry(**mine.model(), alone=train_alone)

def knows():
    return {**mine.model(), "train_loader": [batch(60)], "alone": {"audio": 0.6, "visual": 0.7}}

def nothing(): return None
def less():
    made = mine.model(); del made["head"], made["loader"]; return made
def misspelt(): return {**mine.model(), "clases": ("a",)}
def asks(): return {**mine.model(), "alone": lambda optimizer: None}
def takes(x, y=1): return mine.model()
def lost(): return torch.load("nowhere.pt")
three = 3
"""


def test_an_entry_may_be_a_dataclass_and_train_the_encoders_alone(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "mine.py").write_text(ENTRY)
    (there / "every.py").write_text(EVERYTHING)
    assert main(["diagnose", "every:trains", "--out=found"]) == 0
    found = Diagnosis.from_dict(json.loads((there / "found" / "diagnosis.json").read_text()))
    assert (found.model, found.data, found.classes) == ("mine", "noise", ("one", "two", "three"))
    assert found.together is not None
    assert main(["diagnose", "every:knows", "--out=found"]) == 0
    found = Diagnosis.from_dict(json.loads((there / "found" / "diagnosis.json").read_text()))
    assert found.alone is not None
    assert found.alone["visual"].value == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("every:nothing", "every:nothing(): expected a dict with model, encoders, head, loader, f"),
        ("every:less", "missing head (the module that turns"),
        ("every:less", "; loader (held-out data"),
        ("every:misspelt", "unknown entry 'clases': did you mean 'classes'?"),
        ("every:asks", "alone: expected a function of some of subject, train_loader, loader"),
        ("every:three", "expected a function, found int"),
        ("every:takes", "expected a function without arguments, found one of x"),
        ("every:lost", "every:lost(): [Errno 2] No such file or directory: 'nowhere.pt'"),
        ("every.py:trains", "found a file before the colon: say every:trains"),
        ("every:four", "module every has no four"),
        ("every:", "module every has no name after the colon"),
        ("nowhere.at.all:model", "no module nowhere.at.all in"),
        ("needs:model", "importing needs failed: No module named 'some_library'"),
    ],
)
def test_errors_say_what_is_missing(
    entry: str, message: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "mine.py").write_text(ENTRY)
    (there / "every.py").write_text(EVERYTHING)
    (there / "needs.py").write_text("import some_library\n")
    assert message in refused(capsys, entry)


@pytest.mark.parametrize("option", ["--no-alone", "--split=test", "watch", "--groups=a"])
def test_options_of_runs_are_refused_for_a_function(
    option: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "mine.py").write_text(ENTRY)
    assert "mine:model" in refused(capsys, "mine:model", option)


def test_help_and_misspelt_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for word in ("package.module:function", "--no-alone", "--split", "train_loader"):
        assert word in text
    assert "did you mean '--split'" in refused(capsys, "run", "--spilt=test")
    assert "missing: model" in refused(capsys)
    assert torch.is_grad_enabled()
