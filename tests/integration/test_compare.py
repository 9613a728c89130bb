"""Comparisons for real: interrupted, killed, continued, and what the command prints of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import equimodal as eq
from equimodal.cli import main
from equimodal.compare import Comparison, Entry, Progress
from equimodal.tasks import HOLD, locked
from equimodal.tasks import lock as locks
from equimodal.training import Settings

MODALITIES = ("pix", "mor", "fou")
QUICK = Settings(epochs=2, batch_size=400)
ENTRIES = [Entry("joint", "joint"), Entry("ogm", "ogm", grid={"alpha": (0.1, 0.8)})]
COMMAND = [
    sys.executable, "-m", "equimodal", "compare", "mfeat", "--modalities=[pix,mor,fou]",
    "--batch-size=400", "--rows=[pix alone, joint, ogm]", "--alphas=[0.1]", "--workers=2",
    "--epochs=3", "--seeds=4",
]  # fmt: skip
RUNS_IN_ALL = 3 * 4
ENVIRONMENT = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}


def comparison(folder: Path, **changes: Any) -> Comparison:
    given: dict[str, Any] = {
        "name": "mfeat", "entries": ENTRIES, "folder": folder, "seeds": [0, 1], "settings": QUICK,
        "modalities": MODALITIES,
    }  # fmt: skip
    return Comparison(**(given | changes))


def test_other_encoders_are_another_comparison(tmp_path: Path) -> None:
    given: dict[str, Any] = {"name": "watch", "modalities": None, "seeds": [0]}
    given |= {"entries": ENTRIES[:1], "settings": replace(QUICK, epochs=1)}
    plain = comparison(tmp_path, **given, encoder="plain")
    assert not plain.run(workers=1)
    (path,) = tmp_path.glob("runs/*/run.json")
    held = json.loads(path.read_text())["model"]
    assert held["gyroscope"] == "CNN1d without normalisation"
    with pytest.raises(eq.SetupError, match="encoder plain, this one has small"):
        comparison(tmp_path, **given)


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [*COMMAND, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT,
    )


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait for something that must become true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def results(folder: Path) -> dict[str, int]:
    """The finished runs, each with the time it was written."""
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("runs/*/result.json")}


def group(process: subprocess.Popen[str]) -> list[int]:
    """The living processes of the group, the first one left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == process.pid and state != "Z" and int(path.parent.name) != process.pid:
            found.append(int(path.parent.name))
    return found


def a_busy_worker(process: subprocess.Popen[str], folder: Path) -> int:
    """Return a process that is in the middle of a run."""
    until(lambda: list(folder.glob("runs/*/place.txt")))
    forked_from = until(lambda: [p for p in group(process) if len(children(p)) > 1])[0]
    return int(children(forked_from)[0])


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def broken_off(folder: Path, stop: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str, str]:
    """Start the command, stop it while runs are under way, and return its status and output."""
    before = len(results(folder))
    process = start(folder)
    until(lambda: len(results(folder)) > before and list(folder.glob("runs/*/checkpoints")))
    assert process.poll() is None, "it was too quick to be stopped"
    stop(process)
    out, err = process.communicate()
    until(lambda: not group(process), seconds=10)  # none is left behind
    assert "Traceback" not in err
    return process.returncode, out, err


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """An uninterrupted comparison, its output and its log."""
    folder = tmp_path_factory.mktemp("straight") / "results"
    process = start(folder)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return folder, out, err


def test_what_a_comparison_prints_and_leaves_behind(straight: tuple[Path, str, str]) -> None:
    folder, out, err = straight
    assert sorted(path.name for path in folder.iterdir()) == [
        ".equimodal.lock", "comparison.json", "learning.pdf", "learning.png", "learning.svg",
        "plan.json", "runs", "runs.csv", "table.md",
    ]  # fmt: skip
    assert max(map(len, out.splitlines())) <= 80 + len(str(folder))
    table = out[: out.index("Test accuracy in %")]
    assert max(map(len, table.splitlines())) <= 80
    for label in ("pix alone", "joint", "ogm (alpha 0.1)"):
        assert label in table
        assert label in (folder / "table.md").read_text()
    assert "4 seeds are too few to tell a method from joint training" in " ".join(out.split())
    assert "4 seeds are too few" in (folder / "table.md").read_text()
    for text in (out, err):
        assert not any(c < " " and c != "\n" for c in text), "control characters in a pipe"
    assert "0 of 12 runs, 0%" in err
    assert "12 of 12 runs, 100%" in err
    assert 3 <= len(err.splitlines()) <= 23
    assert len((folder / "runs.csv").read_text().splitlines()) == 1 + RUNS_IN_ALL
    assert not list(folder.rglob("*partial*"))
    assert not list(folder.rglob("checkpoints"))


def test_stopped_in_every_way_it_goes_on_and_ends_as_if_uninterrupted(
    straight: tuple[Path, str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "results"

    # Ctrl-C: a terminal sends it to the whole group.
    status, out, err = broken_off(folder, lambda p: os.killpg(p.pid, signal.SIGINT))
    finished = results(folder)
    assert status == 130
    assert 0 < len(finished) < RUNS_IN_ALL
    assert err.splitlines()[-1] == (
        f"equimodal compare: interrupted, {RUNS_IN_ALL - len(finished)} of {RUNS_IN_ALL} runs are "
        "left: the same command goes on"
    )
    table = (folder / "table.md").read_text()
    assert "1/4" in out, "it says how many seeds a row has"
    assert "1/4" in table
    assert not list(folder.rglob("*partial*"))

    # The parent is killed: its workers end by themselves.
    status, _, err = broken_off(folder, lambda p: os.kill(p.pid, signal.SIGKILL))
    assert status == -signal.SIGKILL
    assert f"{len(finished)} of {RUNS_IN_ALL} runs" in err.splitlines()[0]
    assert finished.items() <= results(folder).items(), "a finished run was repeated"
    finished = results(folder)

    # A worker is killed: its run is begun again where it was.
    def kill_a_worker(process: subprocess.Popen[str]) -> None:
        os.kill(a_busy_worker(process, folder), signal.SIGKILL)

    status, _, err = broken_off(folder, kill_a_worker)
    assert (status, "failed" in err) == (0, False)
    assert finished.items() <= results(folder).items()
    finished = results(folder)
    assert len(finished) == RUNS_IN_ALL

    assert main([*COMMAND[3:], "--out", str(folder)]) == 0
    assert finished == results(folder)
    for name in ("runs.csv", "table.md", "learning.svg"):
        assert (folder / name).read_bytes() == (straight[0] / name).read_bytes(), name


def test_more_rows_and_alphas_add_to_what_is_there_and_failures_stop_nobody(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results"
    quick = replace(QUICK, epochs=1)
    seen: list[Progress] = []
    joint = [ENTRIES[0]]
    first = comparison(folder, entries=joint, seeds=[0], settings=quick)
    assert first.run(1, seen.append) == {}
    assert [row.label for row in first.rows()] == ["joint"]
    (path,) = folder.glob("runs/*/result.json")
    test = json.loads(path.read_text())["test"]
    path.unlink()  # as by someone who wants it done again
    nobody = Entry("nobody", "unimodal", {"modality": "nobody"})
    wider = comparison(folder, entries=[nobody, *ENTRIES], settings=quick, seeds=[0])
    (failed,) = wider.run(1, seen.append).items()
    assert failed[0].startswith("nobody")
    assert "unknown modality 'nobody'" in failed[1]
    assert seen[-1] == Progress(4, 4, 3, 4, ())
    assert wider.missing() == 1
    assert len(results(folder)) == 3
    assert json.loads(path.read_text())["test"] == test
    assert [row.entry.label for row in wider.rows()] == ["joint", "ogm"]
    # Fewer again: only what was asked for is in the table, and nothing is done or lost.
    narrow = comparison(folder, entries=joint, settings=quick, seeds=[0])
    assert narrow.missing() == 0
    assert narrow.run(1) == {}
    assert [row.label for row in narrow.rows()] == ["joint"]
    assert len(results(folder)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": replace(QUICK, epochs=3)}, "settings epochs 2, this one has epochs 3: name"),
        ({"settings": replace(QUICK, lr=0.1)}, "settings lr 0.05, this one has lr 0.1"),
        ({"modalities": ("pix", "mor")}, "modalities pix, mor, fou, this one has pix, mor"),
        ({"name": "watch", "modalities": None}, "data mfeat, this one has watch"),
        ({"seeds": []}, "seeds: expected one or more, none twice, found none"),
        ({"seeds": [1, 1]}, "seeds: expected one or more, none twice, found 1, 1"),
        ({"entries": []}, "entries: expected one or more"),
        ({"entries": [ENTRIES[0], ENTRIES[0]]}, "none twice, found joint, joint"),
        ({"entries": [Entry("ogm", "ogm", grid={"alpha": ()})]}, "alpha of ogm: expected one"),
        ({"modalities": ("pix",)}, "modalities: expected two or more, found pix alone"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    change: Any, message: str, tmp_path: Path
) -> None:
    comparison(tmp_path / "held").claim.write()
    with pytest.raises(eq.SetupError, match=message):
        comparison(tmp_path / "held", **change)
    if not {"settings", "name"} & set(change) and len(change.get("modalities", [0])) != 2:
        with pytest.raises(eq.SetupError, match=message):
            comparison(tmp_path / "new", **change)
    assert [path.name for path in tmp_path.rglob("*")] == ["held", "comparison.json"]


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(eq.SetupError, match="holds a run, not a comparison"):
        comparison(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "comparison.json").write_text("cut off {")
    with pytest.raises(eq.SetupError, match=r"comparison\.json is damaged or not equimodal's"):
        comparison(tmp_path)


def test_runs_of_other_versions_are_not_mixed_in(tmp_path: Path) -> None:
    ours = comparison(tmp_path)
    ours.claim.write()
    path = tmp_path / "comparison.json"
    plan = json.loads(path.read_text())
    plan["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(plan))
    with pytest.raises(eq.SetupError, match=r"versions torch 1\.0, this one has torch"):
        comparison(tmp_path).run(1)
    with pytest.raises(eq.SetupError, match="workers: expected 1 or more, found 0"):
        ours.run(0)


def test_a_second_comparison_in_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    ours = comparison(tmp_path)
    with (
        locked(tmp_path / HOLD, "held"),
        pytest.raises(eq.SetupError, match="another process is at work in it: wait for it"),
    ):
        ours.run(1)
    assert not (tmp_path / "comparison.json").exists()
