"""From folders named as the publishers name them to a trained model, by the commands of the docs."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from equimodal import data
from equimodal.cli import main
from support.clips import reencode, write_clip

RAW = Path(os.environ.get("EQUIMODAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "raw"
ABSENT = f"{RAW} is not here: set EQUIMODAL_DATA to the folder that holds raw/"
QUICK = ["--epochs", "1", "--batch-size", "8", "--lr", "0.01"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sentences of GRID; where they are not there, two clips of a tone and painted numbers."""
    real = sorted((RAW / "grid" / "s1").glob("*.mpg"))[:2]
    if real:
        return real
    folder = tmp_path_factory.mktemp("originals")
    return [write_clip(folder / f"{hz}.mpg", seconds=3, hz=hz) for hz in (330, 550)]


@pytest.fixture(scope="module")
def encoded(originals: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """The originals in the containers that data sets use; each is encoded once."""
    folder = tmp_path_factory.mktemp("encoded")

    def give(suffix: str) -> list[Path]:
        found = [folder / f"{number}{suffix}" for number in range(len(originals))]
        for source, path in zip(originals, found, strict=True):
            if not path.exists():
                reencode(source, path)
        return found

    return give


def spread(files: list[Path], names: Iterable[Path]) -> None:
    """Put the files under many names, in turn."""
    for file, name in zip(itertools.cycle(files), names, strict=False):
        name.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, name)


def crema_d(raw: Path, encoded: Callable) -> list[str]:
    emotions = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    names = [f"{1001 + actor}_DFA_{e}_XX" for actor in range(5) for e in emotions]
    spread(encoded(".wav"), (raw / "AudioWAV" / f"{name}.wav" for name in names))
    spread(encoded(".flv"), (raw / "VideoFlash" / f"{name}.flv" for name in names))
    return names


def kinetics_sounds(raw: Path, encoded: Callable) -> list[str]:
    # Annotated times are of the whole video on YouTube; a clip's file begins where they do.
    rows = [
        {
            "label": label,
            "youtube_id": f"{label[8:11]}-_{number:06d}",
            "time_start": 10,
            "time_end": 13,
            "split": split,
        }
        for label in ("playing piano", "playing violin")
        for number, split in enumerate(["train"] * 4 + ["validate"] * 2 + ["test"] * 2)
    ]
    with (raw / "annotations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    names = [f"{row['youtube_id']}_000010_000013" for row in rows]
    spread(encoded(".mp4"), (raw / "videos" / f"{name}.mp4" for name in names))
    return names


def vggsound(raw: Path, encoded: Callable) -> list[str]:
    ids = [f"v-_{number:08d}" for number in range(14)]
    with (raw / "vggsound.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for number, each in enumerate(ids):
            label = ["dog barking", "hail, rain"][number % 2]
            writer.writerow([each, 34, label, "test" if number >= 10 else "train"])
    spread(encoded(".mp4"), (raw / "video" / f"{each}_000034.mp4" for each in ids))
    return ids


def ave(raw: Path, encoded: Callable) -> list[str]:
    lines = [f"{['Bark', 'Bell'][n % 2]}&ave_{n:07d}&good&0&2" for n in range(12)]
    (raw / "Annotations.txt").write_text(
        "\n".join(["Category&VideoID&Quality&StartTime&EndTime", *lines]) + "\n"
    )
    for name, part in {"train": lines[:6], "val": lines[6:8], "test": lines[8:]}.items():
        (raw / f"{name}Set.txt").write_text("\n".join(part) + "\n")
    spread(encoded(".mp4"), (raw / "AVE" / f"{line.split('&')[1]}.mp4" for line in lines))
    return lines


LAYOUTS = {
    "crema-d": (crema_d, [], (257, 188)),
    "kinetics-sounds": (kinetics_sounds, ["--classes"], (128, 998)),
    "vggsound": (vggsound, [], (129, 626)),
    "ave": (ave, [], (257, 1007)),
}


def prepared(name: str, raw: Path, encoded: Callable, *more: str) -> Path:
    make, options, _ = LAYOUTS[name]
    make(raw, encoded)
    if options:
        (raw / "classes.txt").write_text("playing piano\nplaying violin\n")
        options = [*options, str(raw / "classes.txt")]
    out = raw.parent / "prepared"
    command = ["prepare", name, "--source", str(raw), "--out", str(out), "--side", "64"]
    assert main([*command, "--workers", "1", *options, *more]) == 0
    return out


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_download_of_every_kind_becomes_batches(
    name: str, tmp_path: Path, encoded: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    out = prepared(name, raw, encoded)
    told = json.loads((out / "dataset.json").read_text())
    assert f"{name} {told['fingerprint']}: train" in capsys.readouterr().out
    splits = data.load(out, size=32)
    assert splits.fingerprint == told["fingerprint"]
    assert told["failures"] == 0
    parts = (splits.train, splits.val, splits.test)
    assert sum(map(len, parts)) == sum(part["planned"] for part in told["splits"].values())
    assert not set(splits.train.groups.tolist()) & set(splits.val.groups.tolist())
    for part in parts:
        batch = next(iter(part.loader(4)))
        audio, visual, target = part.transform(batch)
        assert audio.shape[1:] == (1, *LAYOUTS[name][2])
        assert visual.shape[1:] == (3, splits.train.view.frames, 32, 32)
        assert audio.isfinite().all()
        assert audio.std() > 0.1
        assert visual.std() > 0.1
        assert target.tolist() == part.target[:4].tolist()


def test_crema_d_from_its_folders_to_a_model(
    tmp_path: Path, encoded: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    out = prepared("crema-d", raw, encoded, "--protocol", "speakers", "--validation", "0.2")
    command = ["train", "crema-d", "--data", str(out), "--method", "ogm-ge", *QUICK]
    command += ["--view", "frames=2,size=32,n_fft=256", "--workers", "0"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    told = json.loads((out / "dataset.json").read_text())
    assert f"crema-d {told['fingerprint']}: train" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["fingerprint"] == told["fingerprint"]
    assert 0 <= result["test"]["accuracy/visual"] <= 1


def test_grid_words_from_raw_clips_to_a_model_whoever_reads_them(tmp_path: Path) -> None:
    if not (RAW / "grid").exists():
        pytest.skip(ABSENT)
    out = tmp_path / "grid"
    command = ["prepare", "grid", "--source", str(RAW / "grid"), "--out", str(out)]
    assert main([*command, "--slots", "colour", "--fps", "10", "--side", "64"]) == 0
    assert "blue" in data.load(out).classes
    results = []
    for workers in ("0", "2"):
        run = tmp_path / f"run-{workers}"
        command = ["train", str(out), "--method", "ogm-ge", *QUICK, "--encoder", "resnet18"]
        command += ["--view", "frames=2,size=32", "--workers", workers, "--out", str(run)]
        assert main(command) == 0
        results.append(json.loads((run / "result.json").read_text()))
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["history"] == results[1]["history"]


def shortened(source: Path, path: Path, count: int, header: int) -> None:
    """Write the first items of an IDX file."""
    content = gzip.decompress(source.read_bytes())
    size = math.prod(struct.unpack(f">{(header - 8) // 4}I", content[8:header]))
    numbers = content[:4] + struct.pack(">I", count) + content[8:header]
    path.write_bytes(gzip.compress(numbers + content[header : header + count * size]))


def test_digits_seen_and_heard(tmp_path: Path) -> None:
    if not (RAW / "mnist").exists():
        pytest.skip(ABSENT)
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for part, count in {"train": 120, "t10k": 60}.items():
        for kind, header in {"images-idx3": 16, "labels-idx1": 8}.items():
            name = f"{part}-{kind}-ubyte.gz"
            shortened(RAW / "mnist" / name, raw / name, count, header)
    for path in (RAW / "fsdd" / "recordings").glob("*_[0-3].wav"):
        shutil.copy(path, raw)
    assert main(["prepare", "av-mnist", "--source", str(raw), "--out", str(out)]) == 0
    splits = data.load(out)
    assert splits.classes == tuple("0123456789")
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 180
    image, audio, target = splits.test.transform(next(iter(splits.test.loader(8))))
    assert image.shape == (8, 1, 28, 28)
    assert audio.shape[:3] == (8, 1, 64)
    assert torch.equal(target, splits.test.target[:8])


def test_a_prepared_folder_is_asked_for_by_its_own_name(
    tmp_path: Path, encoded: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    out = prepared("ave", raw, encoded)
    capsys.readouterr()

    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    assert "holds ave, not grid" in refused("train", "grid", "--data", str(out))
    assert "expected a prepared folder" in refused("train", "ave", "--data", str(tmp_path / "no"))
    assert "did you mean 'frames'" in refused("train", str(out), "--view", "frame=3")
    assert "frames: expected 1 or more" in refused("train", str(out), "--view", "frames=0")
    assert "groups: for files of arrays alone" in refused("train", str(out), "--groups", "utt")
    assert "of prepared clips alone" in refused("train", "watch", "--view", "frames=3")
    assert "no prepared data set" in refused("train", str(raw))
