"""`equimodal prepare` as it is typed: help, faults, interruptions, and real clips."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from equimodal.cli import main
from equimodal.data import media
from equimodal.data.layouts import LAYOUTS
from support.raw_clips import CLASSES, files_of, make_source, split_of

DATA = Path(os.environ.get("EQUIMODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
GRID = DATA / "raw" / "grid"
DECODING = ["--fps=10", "--side=24", "--rate=8000", "--shard-size=8", "--workers=1"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 40 clips, one of which is cut off, and one is not there."""
    source = make_source(tmp_path_factory.mktemp("clips") / "raw", 40)
    (source / "c003.mpg").write_bytes(b"")
    (source / "c007.mpg").unlink()
    with (source / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "audio", "label", "split", "id"])
        for place in range(40):
            name, label = f"c{place:03d}", CLASSES[place // 5 % 2]
            writer.writerow([f"{name}.mpg", f"{name}.wav", label, split_of(place), name])
    return source / "clips.csv"


def command(manifest: Path, out: Path, *more: str) -> list[str]:
    return ["prepare", "manifest", f"--source={manifest}", f"--out={out}", *DECODING, *more]


def test_from_a_manifest_to_a_data_set(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(manifest, out)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    last = said.err.splitlines()[-1]
    assert last.startswith(f"equimodal: {out}: 1 of 40 clips (2.5%) are missing, 1% are allowed")
    assert not list((out / "data").iterdir()), "what is clear before decoding is said before it"

    assert main(command(manifest, out, "--allow-missing=0.025")) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 40 clips (5.0%) are missing, 2.5% are allowed" in last
    assert last.endswith("with --allow-missing 0.05: what is decoded stays")
    assert not (out / "dataset.json").exists()
    before = files_of(out / "data")

    assert main(command(manifest, out, "--allow-missing=0.05")) == 0
    assert files_of(out / "data") == before
    said = capsys.readouterr()
    held = json.loads((out / "dataset.json").read_text())
    size = sum(path.stat().st_size for path in (out / "data").iterdir())
    assert said.out.splitlines() == [
        f"manifest {held['fingerprint']}: train 23, val 7, test 8; audio, visual; 2 classes",
        f"{size / 1e6:.1f} MB in {out}",
        f"2 left out: 1 empty file, 1 no such file; see {out}/failures.csv",
        "",
        f"Next: equimodal train manifest --data {out}",
    ]
    assert main(["prepare", "--verify", str(out)]) == 0
    assert held["fingerprint"] in capsys.readouterr().out
    (out / "data" / "val-00000-of-00001.parquet").write_bytes(b"PAR1")
    assert main(["prepare", f"--verify={out}"]) == 2
    assert "1 of 5 shards are not as they were made" in capsys.readouterr().err

    assert main(command(manifest, out, "--allow-missing=0.05", "--quality=50")) == 2
    assert "recipe: quality 90, now 50: give --fresh" in capsys.readouterr().err
    assert main(command(manifest, out, "--allow-missing=0.05", "--quality=50", "--fresh")) == 0
    assert json.loads((out / "dataset.json").read_text())["recipe"]["quality"] == 50


def test_ctrl_c_ends_it_at_once_and_the_same_command_goes_on(
    manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = [sys.executable, "-m", "equimodal", *command(manifest, out, "--allow-missing=0.1")]
    given += ["--workers=2", "--fps=100"]
    for _ in range(5):  # on an idle machine it may be done before it hears
        process = subprocess.Popen(
            given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stderr is not None
        assert "clips" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        said, complaints = process.communicate(timeout=60)  # until no process can write any more
        if process.returncode:
            break
        shutil.rmtree(out)
    assert (process.returncode, said) == (130, "")
    assert "Traceback" not in complaints
    last = complaints.splitlines()[-1]
    assert last.startswith("equimodal: interrupted: ")
    assert "the same command goes on" in last
    assert not [name for name in files_of(out) if "partial" in name]

    assert main(given[3:]) == 0
    assert main(command(manifest, tmp_path / "one", "--allow-missing=0.1", "--fps=100")) == 0
    assert files_of(out) == files_of(tmp_path / "one")


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_help_fits_into_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", name, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for option in ("--source", "--out", "--fps", "--quality", "--allow-missing", "--fresh"):
        assert f"  {option}" in text
    assert f"[{LAYOUTS[name].recipe.fps}]" in text


def test_help_lists_the_data_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"\n  {name} " in text for name in LAYOUTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grit"], "unknown data set to prepare 'grit': did you mean 'grid'?"),
        (["--source=x"], "expected the name of a data set first: "),
        (["grid", "--source=x", "--out=y", "--qualty=3"], "unknown option '--qualty': did you"),
        (["grid", "--source=x"], "out"),
        (["grid", "--source=x", "--out=y", "--quality=200"], "quality: expected 1 to 95, found"),
        (["grid", "--source=x", "--out=y", "--fps=many"], "--fps: expected a number, found many"),
        (["--verify", "/nowhere"], "/nowhere: expected dataset.json of a finished data set"),
    ],
)
def test_wrong_use_is_said_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.skipif(not GRID.is_dir(), reason="no raw data at ../shared/data/raw")
def test_all_real_clips_of_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """80 sentences, cut to their letters."""
    out = tmp_path / "out"
    assert main(["prepare", "grid", f"--source={GRID}", f"--out={out}"]) == 0
    assert "no clip left out" in capsys.readouterr().out
    held = json.loads((out / "dataset.json").read_text())
    assert sum(split["rows"] for split in held["splits"].values()) == 80
    listing = LAYOUTS["grid"](GRID).listing()
    clips = {clip.id: clip for clip in listing.clips}
    table = pq.read_table(out / held["splits"]["test"]["shards"][0]["file"])
    for row in table.to_pylist()[:2]:
        clip = clips[row["id"]]
        sound = clip.pieces["audio"]
        assert listing.classes[row["label"]] == clip.label
        pcm, rate = media.pcm(row["audio"]["bytes"])
        assert rate == 16_000
        expected = media.sound(GRID / sound.path, sound.start, sound.end, 16_000)
        assert (pcm == expected).all()
        assert len(row["visual"]) == pytest.approx((sound.end - sound.start) * 25, abs=1)
