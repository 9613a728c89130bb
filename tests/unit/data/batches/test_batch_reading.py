"""Prepared folders that are not whole, or not what is asked for."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import datasets
import pytest
from torch._utils import ExceptionWrapper

import equimodal as eq
from equimodal.data import Splits
from equimodal.data.batches import shards
from equimodal.data.batches.read import read
from equimodal.data.batches.stream import stream
from support.prepared import clips, picture, prepared, wav

AGAIN = "equimodal prepare ...` again"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepared(tmp_path / "data set")


def rewritten(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shard(folder: Path, split: str = "train") -> Path:
    return min(folder.glob(f"data/{split}-*.parquet"))


def message(folder: Path) -> str:
    with pytest.raises(eq.SetupError) as refused:
        read(folder)
    return str(refused.value)


# ---------------------------------------------------------------------- not whole


@pytest.mark.parametrize("name", ["", "dataset.json"])
def test_a_folder_without_its_description_is_no_data_set(folder: Path, name: str) -> None:
    shutil.rmtree(folder) if not name else (folder / name).unlink()
    said = message(folder)
    assert str(folder) in said
    assert "dataset.json is not there, which is written last" in said
    assert AGAIN in said


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format": 1}', '{"format": 1, "view": {}, "splits": 3}']
)
def test_a_damaged_description_is_refused(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text)
    assert f"{folder}/dataset.json is damaged" in (said := message(folder))
    assert AGAIN in said


def test_a_description_that_was_cut_short_is_refused(folder: Path) -> None:
    path = folder / "dataset.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    assert "dataset.json is damaged" in message(folder)


def test_another_format_is_refused(folder: Path) -> None:
    rewritten(folder, format=2)
    assert "expected format 1, found 2: prepared by another version" in message(folder)


def test_a_kind_of_modality_that_does_not_exist_is_refused(folder: Path) -> None:
    rewritten(folder, modalities={"audio": "sounds"})
    assert "'sounds': did you mean 'sound'?" in message(folder)


def test_a_split_without_samples_is_refused(folder: Path) -> None:
    said = json.loads((folder / "dataset.json").read_text())["splits"]
    rewritten(folder, splits={**said, "val": {"planned": 0, "rows": 0, "shards": []}})
    assert "expected samples in every split, found none in val" in message(folder)


def test_a_shard_outside_of_the_folder_is_refused(folder: Path) -> None:
    said = json.loads((folder / "dataset.json").read_text())["splits"]
    for file in ("../secret.parquet", "/etc/passwd", "data/../../secret.parquet"):
        said["val"]["shards"][0]["file"] = file
        rewritten(folder, splits=said)
        assert "expected shards in the folder" in message(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder).unlink()
    assert f"{shard_name(folder)} is missing" in (said := message(folder))
    assert AGAIN in said
    with pytest.raises(eq.SetupError, match="is missing"):
        list(stream(folder))


def shard_name(folder: Path) -> Path:
    return folder / "data" / "train-00000-of-00003.parquet"


@pytest.mark.parametrize("keep", [0, 3, 2000, -1])
def test_a_truncated_shard_is_named(folder: Path, keep: int) -> None:
    path = shard(folder, "val")
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} is damaged" in (said := message(folder))
    assert AGAIN in said
    assert not list((folder / ".cache").glob("*.partial"))
    with pytest.raises(eq.SetupError, match="is damaged"):
        list(stream(folder, "val"))


def test_a_shard_with_one_other_byte_is_named(folder: Path) -> None:
    path = shard(folder, "test")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"{path} is damaged: its bytes are not those that were prepared" in message(folder)


def test_a_shard_with_fewer_rows_than_it_should_have_is_named(folder: Path) -> None:
    said = json.loads((folder / "dataset.json").read_text())["splits"]
    said["val"]["shards"][0]["rows"] = 9
    rewritten(folder, splits=said)
    assert "expected 9 rows, found 8" in message(folder)
    with pytest.raises(eq.SetupError, match="expected 9 rows, found 8"):
        list(stream(folder, "val"))


def test_labels_that_are_no_place_of_a_class_are_refused(folder: Path) -> None:
    rewritten(folder, classes=["calm", "glad"])
    assert "label: expected 0 to 1" in message(folder)


def test_shards_of_another_data_set_are_refused(folder: Path, tmp_path: Path) -> None:
    other = {"train": clips(19, "z"), "val": clips(9, "b", 2), "test": clips(11, "c", 3)}
    prepared(tmp_path / "other", other)
    said = json.loads((tmp_path / "other" / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**said, "fingerprint": "0123456789ab"}))
    shutil.copytree(tmp_path / "other" / "data", folder / "data", dirs_exist_ok=True)
    assert "states the fingerprint 0123456789ab, the shards have" in message(folder)


# ---------------------------------------------------------------------- clips that are not whole


def no_sound(row: dict[str, Any]) -> None:
    row["audio"] = None


def no_bytes(row: dict[str, Any]) -> None:
    row["audio"]["bytes"] = None


def no_frames(row: dict[str, Any]) -> None:
    row["visual"] = []


def no_frame(row: dict[str, Any]) -> None:
    row["visual"] = [{"bytes": None, "path": None}] * 5


def half_a_frame(row: dict[str, Any]) -> None:
    for each in row["visual"]:
        each["bytes"] = each["bytes"][: len(each["bytes"]) // 2]


def no_picture(row: dict[str, Any]) -> None:
    row["visual"] = [{"bytes": b"nothing", "path": None}] * 5


def half_a_header(row: dict[str, Any]) -> None:
    row["audio"]["bytes"] = row["audio"]["bytes"][:20]


def other_rate(row: dict[str, Any]) -> None:
    row["audio"]["bytes"] = wav(clips(1, "x")[0].sound, 44_100)  # type: ignore[arg-type]


def other_sizes(row: dict[str, Any]) -> None:
    for number, each in enumerate(row["visual"]):
        made = clips(1 + number, "x")[number].frames
        assert made is not None
        each["bytes"] = picture(made[0][: 10 + number], "JPEG")


@pytest.mark.parametrize(
    ("spoil", "modality", "reason"),
    [
        (no_sound, "audio", "it is missing"),
        (no_bytes, "audio", "it is missing"),
        (no_frames, "visual", "it is missing"),
        (no_frame, "visual", "it is missing"),
        (half_a_frame, "visual", "truncated"),
        (no_picture, "visual", "cannot identify image"),
        (half_a_header, "audio", "it is no wav file"),
        (other_rate, "audio", "expected sound of 8000 hz, found 44100 hz"),
        (other_sizes, "visual", "expected frames of one size, found"),
    ],
)
def test_a_clip_that_cannot_be_read_is_named_with_its_shard(
    tmp_path: Path, spoil: Any, modality: str, reason: str
) -> None:
    def one(row: dict[str, Any]) -> None:
        if row["id"] == "b002":
            spoil(row)

    folder = prepared(tmp_path, spoil=one)
    val = read(folder).val
    assert len(val[1]) == len(val[3]) == 3  # its neighbours
    with pytest.raises(eq.SetupError) as refused:
        val[2]
    said = str(refused.value)
    assert said.startswith(f"{shard(folder, 'val')}: {modality} of clip 'b002' cannot be read: ")
    assert reason in said.lower()
    assert AGAIN in said
    assert len(read(folder, modalities=[{"audio", "visual"}.difference([modality]).pop()]).val) == 9
    with pytest.raises(eq.SetupError, match=f"{modality} of clip 'b002' cannot be read"):
        list(stream(folder, "val"))


def test_workers_pass_the_error_on(tmp_path: Path) -> None:
    val = read(prepared(tmp_path, spoil=no_sound)).val
    with pytest.raises(eq.SetupError):
        try:
            val[0]
        except eq.SetupError:
            # As a DataLoader does; it takes five seconds to be rid of workers after an error.
            passed_on = ExceptionWrapper(where="in DataLoader worker process 0")
            raise
    with pytest.raises(eq.SetupError, match="audio of clip 'b000' cannot be read: it is missing"):
        pickle.loads(pickle.dumps(passed_on)).reraise()


# ---------------------------------------------------------------------- what is asked for


def test_the_view_is_the_folders_unless_said_otherwise(folder: Path) -> None:
    train = read(folder).train
    assert (train.view.frames, train.view.size, train.view.scale) == (2, 16, (0.3, 1.0))
    changed = read(
        folder, frames=3, size=12, spectrogram="log-mel", mels=10, seconds=0.5, modalities=["audio"]
    )
    assert changed.train.shapes == {"audio": (1, 10, 41)}
    assert read(folder, frames=3, size=12).train.shapes["visual"] == (3, 3, 12, 12)
    assert read(folder, spectrogram="fbank").train.shapes["audio"][1] == 16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frame": 3}, "unknown option 'frame': did you mean 'frames'"),
        ({"frames": 0}, "frames: expected 1 or more, found 0"),
        ({"modalities": ["audio", "video"]}, "unknown modality 'video'"),
        ({"modalities": ["audio", "audio"]}, "none twice, found audio, audio"),
        ({"modalities": []}, "found none"),
        ({"modalities": "audio"}, r"found one: use \('audio',\)"),
    ],
)
def test_what_there_is_not_is_refused(folder: Path, options: Any, said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        read(folder, **options)
    with pytest.raises(eq.SetupError, match=said):
        stream(folder, **options)


def test_an_unknown_split_of_a_stream_is_refused(folder: Path) -> None:
    with pytest.raises(eq.SetupError, match="unknown split 'tain': did you mean 'train'"):
        stream(folder, "tain")


# ---------------------------------------------------------------------- the copy in Arrow's format


def test_the_copy_is_made_once_and_follows_the_shards(folder: Path) -> None:
    read(folder)
    made = {path.name: path.stat().st_mtime_ns for path in (folder / ".cache").glob("*.arrow")}
    assert len(made) == 7
    (folder / ".cache" / "killed.partial").write_bytes(b"half")
    read(folder)
    again = {path.name: path.stat().st_mtime_ns for path in (folder / ".cache").glob("*.arrow")}
    assert made == again
    moved = folder.rename(folder.with_name("moved"))
    read(moved)
    assert again == {p.name: p.stat().st_mtime_ns for p in (moved / ".cache").glob("*.arrow")}
    train = clips(19, "z", 9)
    prepared(moved, {"train": train, "val": clips(9, "b", 2), "test": clips(11, "c", 3)})
    splits = read(moved)
    assert splits.train.names[0] == "z000"
    audio = splits.train[0][0]
    assert train[0].sound is not None
    assert audio[:1200].tolist() == train[0].sound[:1200].tolist()
    now = {path.name: path.stat().st_mtime_ns for path in (moved / ".cache").iterdir()}
    assert len([name for name in now if name.endswith(".arrow")]) == 7, "old ones are gone"
    assert "killed.partial" not in now
    assert {name for name in made if name in now} == set(made) & set(now) != set()


def test_a_long_copy_shows_how_far_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    read(folder)
    assert capfd.readouterr() == ("", ""), "a short one is silent"
    shutil.rmtree(folder / ".cache")
    monkeypatch.setattr(shards, "SOON", 0.0)
    read(folder)
    said = capfd.readouterr().err
    assert f"{folder}: copying the shards for reading, once: " in said
    assert "100%" in said
    read(folder)
    assert capfd.readouterr() == ("", ""), "made once"


def test_a_damaged_copy_is_named(folder: Path) -> None:
    read(folder)
    for path in (folder / ".cache").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(eq.SetupError, match=r"\.arrow is damaged.*remove it; it is made anew"):
        read(folder).train.shapes  # noqa: B018


@pytest.mark.parametrize("error", [13, 30])  # not allowed, read-only
def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    make = Path.mkdir

    def refuse(self: Path, *arguments: Any, **settings: Any) -> None:
        if self.name == ".cache":  # the superuser that runs tests may write anywhere
            raise OSError(error, os.strerror(error), str(self))
        make(self, *arguments, **settings)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = read(folder)
    assert len(splits.train[0]) == 3
    assert not (folder / ".cache").exists()
    assert len(list((tmp_path / "cache" / "equimodal").glob("*/*.arrow"))) == 7


def test_a_full_disk_is_said(folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(eq.SetupError, match="needs space for a copy of the shards"):
            read(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
    assert not list((folder / ".cache").glob("*.partial"))
    assert isinstance(read(folder), Splits)
