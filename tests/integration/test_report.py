"""The command: from results that were trained to a page, and from the page to the results again."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from equimodal.cli import main
from equimodal.cli.report import run
from equimodal.compare import Comparison
from equimodal.compare.runs import Entry
from equimodal.errors import SetupError
from equimodal.training import Settings
from support.reports import Markup

ENTRIES = [
    Entry("pix alone", "unimodal", {"modality": "pix"}),
    Entry("joint", "joint"),
    Entry("ogm", "ogm", grid={"alpha": (0.3,)}),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "results"
    settings = Settings(epochs=1, batch_size=400)
    comparison = Comparison("mfeat", ENTRIES, folder, [0], settings, ("pix", "mor"))
    assert comparison.run(1) == {}
    comparison.write()
    return folder


def test_what_was_trained_is_on_the_page(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "elsewhere" / "a page.html"
    assert run([str(results), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 seed is too few")
    assert str(out) in said
    assert "Read with care" not in said
    assert f"16 files of figures in {tmp_path / 'elsewhere' / 'a page-figures'}" in said
    page = Markup(out.read_text())
    start = next(n for n, cells in enumerate(page.cells) if "standing" in cells)
    rows = {cells[0]: cells for cells in page.cells[start : start + 1 + len(ENTRIES)]}
    for line in (results / "runs.csv").read_text().splitlines()[1:]:
        name, _, _, _, test, *_ = line.split(",")
        assert rows[name][1] == f"{100 * float(test):.1f}"
    assert not (results / "report.html").exists()


def test_the_command_on_the_page_finds_all_runs_done(results: Path) -> None:
    assert run([str(results)]) == 0
    text = (results / "report.html").read_text()
    (command,) = re.findall(r"<pre><code>(.*?)</code></pre>", text)
    before = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/result.json")}
    first, *arguments = shlex.split(html.unescape(command))
    assert first == "equimodal"
    assert main(arguments) == 0
    after = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/result.json")}
    assert after == before
    assert len(list((results / "runs").iterdir())) == len(before)


def test_what_is_missing_is_said_in_the_terminal_too(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    (victim,) = copy.glob("runs/ogm-*/result.json")
    victim.write_text(victim.read_text()[:-100])
    (copy / "diagnosis.json").write_text(json.dumps({"format": 7}))
    assert run([str(copy)]) == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if str(copy) not in line) <= 78
    said = " ".join(printed.split())
    assert "Read with care:" in said
    assert "ogm (seed 0): result.json cannot be used" in said
    assert "expected format 1, found 7" in said


def test_wrong_use_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"ends in \.html"):
        run([str(results), "--out", str(tmp_path / "report.pdf")])
    with pytest.raises(SetupError, match="found nothing"):
        run([str(tmp_path / "absent")])
    with pytest.raises(SetupError, match="did you mean '--diagnosis'"):
        run([str(results), "--diagnosys", "x"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"--out: .*file is a file, expected a folder"):
        run([str(results), "--out", str(tmp_path / "file" / "report.html")])
    with pytest.raises(SetupError, match="expected a folder of results, found a file"):
        run([str(tmp_path / "file")])


def test_help_fits_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: equimodal report RESULTS [OPTIONS]"
    assert max(map(len, lines)) <= 80
