"""What is done with a trained run: its answers, its model as a file; and a plan before any run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from equimodal.cli import main
from equimodal.training.per_class import PerClass

ALONE = """
import json, sys, torch
model = torch.export.load(sys.argv[1]).module()
torch.manual_seed(0)
found = [model(torch.randn(n, 3, 100), torch.randn(n, 3, 100)) for n in (1, 5)]
assert not any(name.startswith("equimodal") for name in sys.modules)
print(json.dumps([each.tolist() for each in found]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = ["--method", "joint", "--epochs", "1", "--batch-size", "256", "--out", str(folder)]
    assert main(["train", "watch", *options]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_answers_of_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.csv"
    capsys.readouterr()
    assert main(["predict", str(run), "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    held = json.loads((run / "result.json").read_text())
    right = sum(row["target"] == row["class"] for row in rows) / len(rows)
    assert right == pytest.approx(held["test"]["accuracy"], abs=1e-6)
    alone = sum(row["target"] == row["gyroscope alone"] for row in rows) / len(rows)
    assert alone == pytest.approx(held["test"]["accuracy/gyroscope"], abs=1e-6)
    likely = [[float(row[f"p({name})"]) for name in CLASSES] for row in rows]
    assert all(sum(each) == pytest.approx(1, abs=1e-4) for each in likely)
    named = [CLASSES[max(range(7), key=each.__getitem__)] for each in likely]
    assert named == [row["class"] for row in rows]
    assert max(likely[0]) == pytest.approx(float(rows[0]["probability"]), abs=1e-4)


CLASSES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")


def test_parquet_holds_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "not" / "there" / "answers.parquet"
    assert main(["predict", str(run), "--split", "val", "--out", str(file)]) == 0
    table = parquet.read_table(file).to_pydict()
    capsys.readouterr()
    assert main(["predict", str(run), "--split", "val"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert list(table) == list(rows[0])
    assert [str(value) for value in table["sample"]] == [row["sample"] for row in rows]
    assert table["accelerometer alone"] == [row["accelerometer alone"] for row in rows]


def test_the_exported_model_runs_without_this_package(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["export", str(run)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == str(run / "model.pt2")
    assert "accelerometer: float32 (B, 3, 100)" in out[1]
    assert "logits (B, 7): PEN, ABD" in out[3]
    script = tmp_path / "script.py"
    script.write_text(ALONE)
    command = [sys.executable, str(script), out[0]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    from equimodal.cli.examined import Examined

    model = Examined(run).model().cpu().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for logits, count in zip(json.loads(done.stdout), (1, 5), strict=True):
            expected = model(torch.randn(count, 3, 100), torch.randn(count, 3, 100))
            torch.testing.assert_close(torch.tensor(logits), expected)


def test_what_cannot_be_used_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "expected a file in .csv or .parquet" in refused(
        capsys, "predict", run, "--out", "a.txt"
    )
    assert "is a folder, expected a file" in refused(capsys, "predict", run, "--out", tmp_path)
    (tmp_path / "file").write_text("")
    for command, name in (("predict", "a.csv"), ("export", "m.pt2")):
        assert "is a file, expected a folder" in refused(
            capsys, command, run, "--out", tmp_path / "file" / name
        )
    none = tmp_path / "none"
    assert f"{none}: expected the folder of equimodal train or" in refused(capsys, "predict", none)
    assert "expected a file in .pt2" in refused(capsys, "export", run, "--out", "model.onnx")
    assert "trained on" in refused(capsys, "predict", run, "mfeat")
    assert "no run.json" in refused(capsys, "export", tmp_path)


def test_a_dry_run_says_the_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    command = ["compare", "mfeat", "--rows", "[joint, multi-loss]", "--seeds", "3", "--epochs", "2"]
    assert main([*command, "--workers", "1", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "rows      joint, multi-loss" in out
    assert "seeds     0, 1, 2" in out
    assert "epochs    2" in out
    assert "folder    results/mfeat" in out
    assert "6 runs: 2 rows over 3 seeds" in out
    assert not any(tmp_path.iterdir())


def test_each_class_of_a_run(run: Path, tmp_path: Path) -> None:
    """Counted again from the answers, by hand."""
    file = tmp_path / "answers.csv"
    assert main(["predict", str(run), "--out", str(file)]) == 0
    pairs = [(row["target"], row["class"]) for row in csv.DictReader(file.read_text().splitlines())]
    counts = list(csv.DictReader((run / "confusion.csv").read_text().splitlines()))
    assert [row["class"] for row in counts] == list(CLASSES)
    for row in counts:
        assert {name: int(row[name]) for name in CLASSES} == {
            name: pairs.count((row["class"], name)) for name in CLASSES
        }
    for row in csv.DictReader((run / "classes.csv").read_text().splitlines()):
        name = row["class"]
        right = pairs.count((name, name))
        found, true = (sum(pair[of] == name for pair in pairs) for of in (1, 0))
        expected = [right / max(found, 1), right / max(true, 1), 2 * right / max(found + true, 1)]
        written = [float(row[of]) for of in ("precision", "recall", "f1")]
        assert written == pytest.approx(expected, abs=5e-5)
        assert int(row["samples"]) == true


def test_the_page_of_a_run_has_its_classes(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(page)]) == 0
    text = page.read_text()
    section = text.split('<section id="classes-of-the-run"')[1].split("</section>")[0]
    assert "How often which class was found" in section
    assert section.count("<tr") == 2 * (1 + len(CLASSES))


def test_nothing_is_read_of_another_file(tmp_path: Path) -> None:
    assert PerClass.read(tmp_path) is None
    (tmp_path / "confusion.csv").write_text("class,a,b\na,1\n")
    assert PerClass.read(tmp_path) is None
    (tmp_path / "confusion.csv").write_text("class,a\na,many\n")
    assert PerClass.read(tmp_path) is None


def test_samples_without_a_label_do_not_count() -> None:
    found = PerClass.of(torch.tensor([1, 0, 1]), torch.tensor([1, -100, 0]), ["a", "b"])
    assert found.counts.tolist() == [[0, 1], [0, 1]]
    assert found.rows == [("a", 0.0, 0.0, 0.0, 1), ("b", 0.5, 1.0, pytest.approx(2 / 3), 1)]


def test_a_page_of_a_diagnosis_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder, or the file itself: of a model of one's own there is nothing else."""
    folder = tmp_path / "diagnosed"
    assert main(["diagnose", str(run), "--no-alone", "--out", str(folder)]) == 0
    capsys.readouterr()
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "<h1>Diagnosis of Multimodal by Joint on watch</h1>" in text
    assert "accuracy of gyroscope, read alone" in text
    assert 'id="advice"' in text
    assert "seed" not in text.split("</header>")[0]
    out = tmp_path / "other.html"
    capsys.readouterr()
    assert main(["report", str(folder / "diagnosis.json"), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["page"], said["rows"]) == ("report", str(out), [])
    assert out.exists()
    assert "neither comparison.json, run.json nor diagnosis.json" in refused(
        capsys, "report", tmp_path
    )
