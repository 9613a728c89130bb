"""Clips that lack a modality: kept where asked, and batches say which they are."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

import equimodal as eq
from equimodal import data
from equimodal.cli import main
from equimodal.training import model_for
from support.clips import write_clip

LACKING = {"audio": {"c0.mp4", "c5.mp4"}, "visual": {"c1.mp4"}}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty clips: two without sound, one without pictures, one without either."""
    folder = tmp_path_factory.mktemp("partial")
    whole = write_clip(folder / "whole.mp4", seconds=0.5, rate=16_000)
    deaf = write_clip(folder / "deaf.mp4", seconds=0.5, sound=False)
    blind = write_clip(folder / "blind.mp4", seconds=0.5, rate=16_000, video=False)
    (folder / "none.mp4").write_bytes(b"")
    rows = []
    for number in range(20):
        name = f"c{number}.mp4"
        kind = {0: deaf, 5: deaf, 1: blind, 2: folder / "none.mp4"}.get(number, whole)
        shutil.copy(kind, folder / name)
        rows.append((name, "ab"[number % 2], "test" if number > 14 else "train"))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder


def prepared(source: Path, out: Path, *options: str) -> int:
    command = ["prepare", "manifest", "--source", str(source / "clips.csv"), "--out", str(out)]
    command += ["--workers", "1", "--side", "24", "--allow-missing", "0.5", "--rate", "8000"]
    return main([*command, *options])


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "prepared"
    assert prepared(source, out, "--keep-partial") == 0
    return out


def test_without_the_option_they_are_left_out(source: Path, tmp_path: Path) -> None:
    assert prepared(source, tmp_path / "out") == 0
    with (tmp_path / "out" / "failures.csv").open(newline="") as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {
        "c0.mp4": "no sound",
        "c5.mp4": "no sound",
        "c1.mp4": "no video",
        "c2.mp4": "empty file",
    }
    splits = data.load(tmp_path / "out", size=16)
    assert next(iter(splits.train.loader(4)))[-1].shape == (4,)
    assert splits.train.transform(next(iter(splits.train.loader(4)))).present is None


def test_with_it_they_are_kept_and_listed(folder: Path) -> None:
    with (folder / "failures.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["c2.mp4"]
    with (folder / "remarks.csv").open(newline="") as file:
        found = {row["id"]: row["remark"] for row in csv.DictReader(file)}
    assert {name: found[name] for name in ("c0.mp4", "c1.mp4", "c5.mp4")} == {
        "c0.mp4": "without audio: no sound",
        "c1.mp4": "without visual: no video",
        "c5.mp4": "without audio: no sound",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_say_which_samples_have_which(folder: Path, workers: int) -> None:
    splits = data.load(folder, size=16)
    seen = 0
    for clips in (splits.train, splits.val, splits.test):
        first = 0
        for batch in clips.loader(4, workers=workers):
            made = clips.transform(batch)
            *inputs, target = made
            assert made.present is not None
            for name, values in zip(clips.modalities, inputs, strict=True):
                names = clips.ids[first : first + len(target)]
                expected = [each not in LACKING[name] for each in names]
                assert made.present[name].tolist() == expected
                for value, there in zip(values, expected, strict=True):
                    assert torch.isfinite(value).all()
                    seen += not there
                    assert there or value.std(dim=(-2, -1)).max() < 1e-4, "silent or black"
            first += len(target)
    assert seen == 3


def test_a_stream_gives_the_same(folder: Path) -> None:
    clips = data.load(folder, size=16).test
    stream = data.stream(folder, "test", size=16)
    for one, other in zip(clips.loader(3), stream.loader(3), strict=True):
        made, streamed = clips.transform(one), stream.transform(other)
        assert made.present is not None
        assert streamed.present is not None
        for name, mask in made.present.items():
            assert torch.equal(mask, streamed.present[name])


def test_the_mask_reaches_the_balancer(folder: Path) -> None:
    splits = data.load(folder, size=32)
    model = model_for(splits)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    balancer = eq.Balancer(eq.OGM(0.8), model, dict(model.encoders.items()), model.head, optimizer)
    for batch in splits.train.loader(16):
        made = splits.train.transform(batch)
        *inputs, target = made
        loss = balancer.loss(model(*inputs), target, present=made.present)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)


def test_a_run_by_command_trains_on_them_and_is_diagnosed(folder: Path, tmp_path: Path) -> None:
    command = ["train", "manifest", "--data", str(folder), "--method", "ogm", "--epochs", "1"]
    assert main([*command, "--view", "size=32", "--out", str(tmp_path / "run")]) == 0
    assert main(["diagnose", str(tmp_path / "run")]) == 0


def test_a_clip_without_the_file_of_one_modality_is_kept_too(source: Path, tmp_path: Path) -> None:
    """The sound is in files of its own: one is not there, one of the pictures is not either."""
    rows = []
    for number in range(20):
        shutil.copy(source / "deaf.mp4", tmp_path / f"v{number}.mp4")
        write_clip(tmp_path / f"a{number}.wav", seconds=0.5, rate=8000)
        split = "test" if number > 14 else "train"
        rows.append((f"v{number}.mp4", f"a{number}.wav", "ab"[number % 2], split))
    (tmp_path / "a3.wav").unlink()
    (tmp_path / "v16.mp4").unlink()
    for name in ("a4.wav", "v4.mp4"):
        (tmp_path / name).unlink()
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "audio", "label", "split"), *rows])
    assert prepared(tmp_path, tmp_path / "without") == 0
    assert prepared(tmp_path, tmp_path / "out", "--keep-partial") == 0
    sizes = []
    for name in ("without", "out"):
        with (tmp_path / name / "failures.csv").open(newline="") as file:
            sizes.append([row["id"] for row in csv.DictReader(file)])
    assert sizes == [["v3.mp4", "v4.mp4", "v16.mp4"], ["v4.mp4"]]
    with (tmp_path / "out" / "remarks.csv").open(newline="") as file:
        remarks = {row["id"]: row["remark"] for row in csv.DictReader(file)}
    assert remarks["v3.mp4"] == "without audio: no such file"
    assert remarks["v16.mp4"] == "without visual: no such file"
    splits = data.load(tmp_path / "out", size=16)
    seen = 0
    for clips in (splits.train, splits.val, splits.test):
        made = clips.transform(next(iter(clips.loader(20))))
        assert made.present is not None
        for name, lacking in (("audio", "v3.mp4"), ("visual", "v16.mp4")):
            assert made.present[name].tolist() == [each != lacking for each in clips.ids]
            seen += clips.ids.count(lacking)
    assert seen == 2
    run = ["train", "manifest", "--data", str(tmp_path / "out"), "--method", "ogm"]
    run += ["--epochs", "1", "--view", "size=32", "--workers", "0", "--out", str(tmp_path / "run")]
    assert main(run) == 0
    again = write_clip(tmp_path / "a3.wav", seconds=0.5, rate=8000)
    assert again.exists()
    assert prepared(tmp_path, tmp_path / "out", "--keep-partial") == 2, "the source has changed"
