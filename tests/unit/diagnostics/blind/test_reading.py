"""Samples out of JSON lines and `datasets` folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from equimodal.data.media import wav
from equimodal.diagnostics.blind.reading import Read
from equimodal.errors import SetupError


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "asked.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def pictured(folder: Path) -> Path:
    Image.new("RGB", (4, 3), (200, 0, 0)).save(folder / "red.png")
    Image.new("L", (2, 2), 7).save(folder / "grey.png")
    (folder / "tone.wav").write_bytes(wav(np.full(800, 16384, np.int16), 8000))
    return folder


def test_entries_are_opened_and_named(tmp_path: Path) -> None:
    rows = [
        {"images": {"front": "red.png", "wrist": "grey.png"}, "prompt": "go", "label": 1,
         "choices": ["left", "right"], "source": "x"},
        {"images": ["red.png", "grey.png"], "question": "q", "answer": 3, "id": "b"},
        {"images": ["red.png"], "text": "t", "says": {"image": "a", "text": "b"}},
    ]  # fmt: skip
    read = Read(written(pictured(tmp_path), *rows))
    first, second, third = read
    assert (first["front"].size, first["wrist"].mode) == ((4, 3), "RGB")
    assert (first["text"], first["answer"], first["id"]) == ("go", "right", 1)
    assert second["image 2"].getpixel((0, 0)) == (7, 7, 7)
    assert (second["answer"], second["id"]) == ("3", "b")
    assert third["says"] == {"image": "a", "text": "b"}
    assert "image" in third
    assert read.passed == ["source"]


def test_sound_is_given_at_the_rate_of_the_model(tmp_path: Path) -> None:
    path = written(pictured(tmp_path), {"audio": "tone.wav", "text": "t", "answer": "a"})
    sound = Read(path, rate=16000)[0]["audio"]
    assert sound.dtype == np.float32
    assert sound.shape == (1600,)
    assert float(np.median(sound)) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(SetupError, match="the model takes no sound"):
        Read(path)[0]


def test_a_folder_of_datasets_is_read_alike(tmp_path: Path) -> None:
    pictured(tmp_path)
    text = datasets.Value("string")
    stored = {"bytes": datasets.Value("binary"), "path": text}  # an Audio encodes by torchcodec
    features = datasets.Features({"image": datasets.Image(), "audio": stored, "q": text})
    rows = {
        "image": [str(tmp_path / "red.png")] * 2,
        "audio": [{"bytes": (tmp_path / "tone.wav").read_bytes(), "path": None}] * 2,
        "q": ["a", "b"],
    }
    made = datasets.Dataset.from_dict(rows, features).cast_column("audio", datasets.Audio())
    made.save_to_disk(tmp_path / "set")
    read = Read(tmp_path / "set", {"text": "q"}, rate=8000)
    assert [each["text"] for each in read] == ["a", "b"]
    assert read[0]["image"].getpixel((0, 0)) == (200, 0, 0)
    assert len(read[1]["audio"]) == 800
    datasets.DatasetDict(train=made).save_to_disk(tmp_path / "splits")
    with pytest.raises(SetupError, match=r"holds splits \(train\): name one, as .*train"):
        Read(tmp_path / "splits")


def test_some_are_drawn_by_a_seed_in_their_order(tmp_path: Path) -> None:
    path = written(tmp_path, *({"text": str(n), "answer": n % 2} for n in range(20)))
    some = [each["text"] for each in Read(path, limit=5, seed=1)]
    assert some == [each["text"] for each in Read(path, limit=5, seed=1)]
    assert some == sorted(some, key=int)
    assert some != [each["text"] for each in Read(path, limit=5, seed=2)]
    assert Read(path).answers() == ["0", "1"]
    assert len(Read(path, limit=99)) == 20


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([], None, "expected samples, found none"),
        (["text"], None, "line 1: expected an object, found"),
        ([{"text": "a"}], {"txt": "b"}, "columns: unknown entry 'txt': did you mean 'text'"),
        ([{"query": "a"}], {"text": "qury"}, "columns: unknown name 'qury': did you mean 'query'"),
        ([{"image": "none.png"}], None, "sample 1, image: .*No such file"),
        ([{"image": "broken.png", "id": "x"}], None, "sample x, image: cannot identify"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(
    tmp_path: Path, rows: list[Any], columns: Any, said: str
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SetupError, match=said):
        Read(written(tmp_path, *rows), columns)[0]
    (tmp_path / "odd.jsonl").write_text("{")
    with pytest.raises(SetupError, match="line 1: no JSON"):
        Read(tmp_path / "odd.jsonl")
