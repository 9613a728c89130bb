"""One clip never ends a preparation; what is odd about those that stay is listed."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equimodal.cli import main
from equimodal.data.layouts.manifest import Manifest
from equimodal.data.preparing import Recipe, Summary, prepare
from support.clips import write_clip
from support.odd_clips import camera, film, photographed, tone


def rows_of(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    return {row[0]: row[3] for row in rows[1:]}


def prepared(folder: Path, clips: dict[str, Path | None]) -> Summary:
    """Prepare clips, by name, among 20 good ones."""
    good = write_clip(folder / "good.mp4", seconds=0.5)
    rows = []
    for number in range(20):
        shutil.copy(good, folder / f"good{number}.mp4")
        rows.append((f"good{number}.mp4", "", "ab"[number % 2], "test" if number > 13 else "train"))
    for name in clips:
        rows.append((name, "" if clips[name] is None else clips[name].name, "a", "train"))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "audio", "label", "split"), *rows])
    return again(folder)


def again(folder: Path) -> Summary:
    listing = Manifest(source=folder / "clips.csv").listing()
    return prepare(
        listing, folder / "out", Recipe(side=32), Manifest.view, workers=1, allow_missing=0.5
    )


def test_whatever_a_clip_raises_becomes_its_row(tmp_path: Path) -> None:
    """Pillow cannot store a picture wider than 65,500 pixels, and says so in its own way."""
    write_clip(tmp_path / "tone.wav", video=False)
    Image.fromarray(np.zeros((16, 70_000, 3), np.uint8)).save(tmp_path / "wide.png")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "secret.mp4").write_bytes(b"x")
    summary = prepared(
        tmp_path,
        {
            "wide.png": tmp_path / "tone.wav",
            "noise.mp4": None,
            "secret.mp4": None,
        },
    )
    failures = rows_of(tmp_path / "out" / "failures.csv")
    assert set(failures) == {"wide.png", "noise.mp4", "secret.mp4"}
    assert failures["wide.png"].startswith("unreadable: OSError: ")
    assert sum(summary.rows.values()) == 20
    assert summary.reasons == {"unreadable": 3}


def test_clips_of_a_camera_are_prepared(tmp_path: Path) -> None:
    for name, orientation in (("a.avi", 6), ("b.mov", None)):
        lying = (48, 64) if orientation == 6 else (64, 48)
        camera(tmp_path / name, [photographed(n, orientation) for n in range(8)], lying)
    (tmp_path / "photo.jpg").write_bytes(photographed(3, 8))
    write_clip(tmp_path / "tone.wav", video=False)
    summary = prepared(tmp_path, {"a.avi": None, "b.mov": None, "photo.jpg": tmp_path / "tone.wav"})
    assert not summary.reasons
    assert sum(summary.rows.values()) == 23


def test_what_is_odd_is_counted_and_listed(tmp_path: Path) -> None:
    write_clip(tmp_path / "quiet.mp4", wave=np.zeros(16_000))
    black = np.zeros((48, 64, 3), np.uint8)
    write_clip(tmp_path / "dark.mp4", paint=lambda number, width, height: black)
    film(
        tmp_path / "dubbed.mkv",
        [n / 25 for n in range(25)],
        sound=[tone(440, 1), tone(880, 1)],
        default=1,
    )
    summary = prepared(tmp_path, {"quiet.mp4": None, "dark.mp4": None, "dubbed.mkv": None})
    assert summary.remarks == {"silent": 1, "black": 1, "sound": 1}
    assert rows_of(tmp_path / "out" / "remarks.csv") == {
        "dark.mp4": "black",
        "dubbed.mkv": "sound: the default of 2 streams",
        "quiet.mp4": "silent",
    }
    assert "odd, but kept: " in str(summary)
    later = again(tmp_path)
    assert later.decoded == 0
    assert later.remarks == summary.remarks, "known of shards that were made before"


def test_nothing_odd_is_not_spoken_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(tmp_path, {})
    assert (tmp_path / "out" / "remarks.csv").read_text() == "id,path,split,remark\n"
    manifest = ["prepare", "manifest", "--source", str(tmp_path / "clips.csv"), "--workers", "1"]
    assert main([*manifest, "--side", "32", "--out", str(tmp_path / "out")]) == 0
    assert "odd, but kept" not in capsys.readouterr().out


def test_what_splits_share_and_which_list_they_are_is_said(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4", seconds=0.3)
    rows = []
    for number in range(20):
        shutil.copy(good, tmp_path / f"c{number}.mp4")
        split = "test" if number > 13 else "train"
        rows.append((f"c{number}.mp4", "ab"[number % 2], split, f"s{number % 7}", f"v{number}"))
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "speaker", "group"), *rows])
    summary = again(tmp_path)
    line = "6 of 6 values of speaker in test are in train too, with 6 of 6 test clips"
    assert any(each.startswith(line) for each in summary.dataset["shared"])
    assert f"shared: {line}" in str(summary)
    assert line in (tmp_path / "out" / "README.md").read_text()
    assert summary.dataset["published"] == []
