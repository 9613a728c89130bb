"""One shard by itself, and the folder that all of them make."""

from __future__ import annotations

import csv
import gc
import hashlib
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from equimodal.data import media
from equimodal.data.layouts.clip import Failure
from equimodal.data.preparing import Summary, prepare, verify
from equimodal.data.preparing.plan import Shard, planned
from equimodal.data.preparing.rows import schema
from equimodal.data.preparing.shard import GROUP, Task, make
from equimodal.errors import SetupError
from equimodal.tasks import HOLD
from support.raw_clips import CLASSES, RECIPE, files_of, listed, make_source, prepared

BROKEN = 7  # the clip whose pictures are cut off
GONE = Failure("c900-0", "c900.wav", "val", "no such file")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("clips") / "raw", 40)


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A folder of 40 clips, one without pictures, and one of which a list knows only the name."""
    raw = tmp_path_factory.mktemp("broken") / "raw"
    raw.symlink_to(source)
    (source / f"c{BROKEN:03d}.mpg").write_bytes(b"")
    out = raw.parent / "out"
    summary = prepared(listed(raw, failures=[GONE]), out, workers=2, allow_missing=0.1)
    return out, summary


def shard_of(source: Path, clips: int, **changes: Any) -> tuple[Shard, Task]:
    listing = listed(source, times=-(-clips // 40))
    chosen = [replace(c, split="train") for c in listing.clips if c.id[:4] != f"c{BROKEN:03d}"]
    stamps = planned(listing, RECIPE, None, 8).stamps  # type: ignore[arg-type]
    labels = {name: label for label, name in enumerate(CLASSES)}
    shard = Shard("train-00000-of-00001", tuple(chosen[:clips]), stamps)
    for name in ("data", "shards"):
        (changes["folder"] / name).mkdir(parents=True, exist_ok=True)
    return shard, Task(source, changes["folder"], RECIPE, labels, schema(listing))


def test_a_shard_holds_what_the_media_room_decodes(source: Path, tmp_path: Path) -> None:
    shard, task = shard_of(source, 20, folder=tmp_path)
    places: list[int] = []
    record = make(shard, task, {"c003-0": "decoder crashed: twice"}, places.append)
    assert places == list(range(21))
    assert record.failures == (Failure("c003-0", "c003.wav", "train", "decoder crashed: twice"),)
    file = pq.ParquetFile(tmp_path / record.file)
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [GROUP, 3]
    kept = [clip for clip in shard.clips if clip.id != "c003-0"]
    longest = 0.0
    for row, clip in zip(file.read().to_pylist(), kept, strict=True):
        pcm = media.sound(source / clip.pieces["audio"].path, 0.0, None, 8000)
        jpegs = media.frames(source / clip.pieces["visual"].path, 0.0, None, 10, 24, 80)
        longest = max(longest, len(pcm) / 8000)
        assert row == {
            "id": clip.id,
            "label": CLASSES.index(clip.label),
            "group": clip.group,
            "audio": {"bytes": media.wav(pcm, 8000), "path": None},
            "visual": [{"bytes": jpeg, "path": None} for jpeg in jpegs],
            "take": 0.0,
            "said": clip.columns["said"],
        }
    assert record.seconds == {"audio": longest}
    assert record.rows == len(kept)
    assert record.sha256 == hashlib.sha256((tmp_path / record.file).read_bytes()).hexdigest()


def test_a_shard_without_a_row_is_a_table_of_none(source: Path, tmp_path: Path) -> None:
    shard, task = shard_of(source, 3, folder=tmp_path)
    record = make(shard, task, {clip.id: "decoder crashed" for clip in shard.clips}, lambda _: None)
    table = pq.read_table(tmp_path / record.file)
    assert (record.rows, record.seconds, table.num_rows) == (0, {}, 0)
    assert table.schema.equals(task.schema)
    assert table.schema.metadata == task.schema.metadata


def test_memory_is_that_of_a_row_group(source: Path, tmp_path: Path) -> None:
    shard, task = shard_of(source, 10 * GROUP, folder=tmp_path)
    held: list[int] = []

    def look(place: int) -> None:
        if place % GROUP == GROUP // 2:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes())

    tracemalloc.start()
    try:
        record = make(shard, task, {}, look)
    finally:
        tracemalloc.stop()
    assert max(held[5:]) - max(held[1:5]) < 0.1 * record.bytes, "five more row groups, none kept"


def test_a_file_that_changes_while_it_is_prepared_is_named(source: Path, tmp_path: Path) -> None:
    shard, task = shard_of(source, 3, folder=tmp_path)
    stale = dict.fromkeys(shard.stamps, next(iter(shard.stamps.values())))
    with pytest.raises(SetupError, match=r"c000.mpg has changed since preparing began"):
        make(replace(shard, stamps=stale), task, {}, lambda _: None)
    assert files_of(tmp_path) == {}, "nothing half"


def test_the_facts_of_a_prepared_folder(made: tuple[Path, Summary]) -> None:
    out, summary = made
    held = json.loads((out / "dataset.json").read_text())
    splits = {
        name: (split["planned"], split["rows"], len(split["shards"]))
        for name, split in held["splits"].items()
    }
    assert splits == {"train": (24, 24, 3), "val": (9, 7, 1), "test": (8, 8, 1)}
    assert held["modalities"] == {"audio": "sound", "visual": "frames"}
    assert held["rates"] == {"audio": 8000}
    assert held["seconds"]["audio"] == pytest.approx(0.4)
    assert (held["failures"], held["classes"]) == (2, list(CLASSES))
    assert set(held["versions"]) == {"equimodal", "av", "datasets", "pillow", "pyarrow"}
    members: dict[str, list[Any]] = {}
    for split, facts in held["splits"].items():
        members[split] = []
        for shard in facts["shards"]:
            path = out / shard["file"]
            assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            table = pq.read_table(path)
            assert table.num_rows == shard["rows"]
            members[split] += [[row["id"], row["label"]] for row in table.to_pylist()]
    text = json.dumps(["tiny", list(CLASSES)])
    for split in ("train", "val", "test"):
        ids, labels = (list(each) for each in zip(*members[split], strict=True))
        text += json.dumps([split, ids, labels])
    assert held["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert summary.fingerprint == held["fingerprint"] == verify(out)


def test_failures_are_named_and_counted(made: tuple[Path, Summary]) -> None:
    out, summary = made
    with (out / "failures.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "path", "split", "reason"],
        ["c900-0", "c900.wav", "val", "no such file"],
        [f"c{BROKEN:03d}-0", f"c{BROKEN:03d}.mpg", "val", "empty file"],
    ]
    assert "2 left out: 1 no such file, 1 empty file; see " in str(summary)
    card = (out / "README.md").read_text()
    assert "license: cc0-1.0" in card
    assert "| val | 7 | 2 |" in card
    digest = hashlib.sha256((out / "dataset.json").read_bytes()).hexdigest()
    assert digest in card


def test_datasets_reads_the_folder_as_it_is(
    made: tuple[Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    datasets.disable_progress_bars()
    out, summary = made
    whole = datasets.load_dataset(str(out), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in whole.items()} == summary.rows
    features = whole["train"].features
    assert features["label"] == datasets.ClassLabel(names=list(CLASSES))
    assert features["audio"] == datasets.Audio(decode=False)
    assert features["visual"] == datasets.List(datasets.Image(decode=False))
    row = whole["train"][0]
    assert (row["id"], row["audio"]["bytes"][:4]) == ("c000-0", b"RIFF")
    seen = whole.cast_column("visual", datasets.List(datasets.Image()))["train"][0]["visual"]
    assert [picture.size for picture in seen] == [(32, 24)] * 2
    streamed = datasets.load_dataset(str(out), streaming=True)
    assert [each["id"] for each in streamed["test"]] == whole["test"]["id"][:]


def test_the_bytes_do_not_depend_on_the_workers(
    made: tuple[Path, Summary], source: Path, tmp_path: Path
) -> None:
    out, _ = made
    prepared(listed(source, failures=[GONE]), tmp_path / "one", workers=1, allow_missing=0.1)
    assert files_of(tmp_path / "one") == files_of(out)


def times_in(folder: Path) -> dict[Path, int]:
    """When everything in a folder was changed, but for what says who is at work in it."""
    held = folder / HOLD
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path != held}


def test_a_damaged_shard_is_named_and_made_again_alone(
    made: tuple[Path, Summary], source: Path
) -> None:
    out, _ = made
    before = files_of(out)
    listing = listed(source, failures=[GONE])
    times = times_in(out)
    assert prepared(listing, out, allow_missing=0.1).decoded == 0
    assert times_in(out) == times
    damaged = out / "data" / "train-00001-of-00003.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    missing = out / "data" / "test-00000-of-00001.parquet"
    missing.unlink()
    with pytest.raises(SetupError) as refused:
        verify(out)
    assert f"2 of 5 shards are not as they were made: data/{damaged.name} (damaged), " in str(
        refused.value
    )
    assert f"data/{missing.name} (missing)" in str(refused.value)
    assert prepared(listing, out, allow_missing=0.1).decoded == 16
    assert files_of(out) == before
    verify(out)


def test_a_folder_that_is_no_finished_data_set_is_not_verified(
    made: tuple[Path, Summary], tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=r"expected dataset.json of a finished data set"):
        verify(tmp_path)
    (tmp_path / "dataset.json").write_text('{"splits": ')
    with pytest.raises(SetupError, match=r"dataset.json is damaged"):
        verify(tmp_path)
    out, _ = made
    held = json.loads((out / "dataset.json").read_text())
    (tmp_path / "data").symlink_to(out / "data")
    (tmp_path / "dataset.json").write_text(json.dumps({**held, "fingerprint": "0" * 12}))
    with pytest.raises(SetupError, match=r"states the fingerprint 000000000000, the shards have"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers: expected 1 or more, found 0"),
        ({"time_limit": 0}, "time_limit: expected seconds above 0, found 0"),
        ({"allow_missing": 1.5}, "allow_missing: expected 0 to below 1, found 1.5"),
        ({"shard_size": 0}, "shard_size: expected 1 or more, found 0"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=message):
        prepared(listed(source), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_fails_with_the_pip_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'equimodal\[data\]'"):
        prepare(listed(source), tmp_path, RECIPE, None)  # type: ignore[arg-type]
