"""Clips read one after the other: the samples of `Clips`, from folders and over HTTP."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor

import equimodal as eq
from equimodal.data.batches import again
from equimodal.data.batches.clips import Clips
from equimodal.data.batches.read import read
from equimodal.data.batches.stream import Stream, stream
from equimodal.system import ranks
from support.prepared import prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("streamed"))


def key(sample: Any) -> tuple[Any, ...]:
    """All of a sample, to compare it by."""
    audio, visual, target = sample
    return (
        int(target), tuple(audio.tolist()), tuple(visual.box.tolist()), bool(visual.mirrored),
        tuple(visual.pixels.shape), tuple(visual.pixels.flatten().tolist()),
    )  # fmt: skip


def of_clips(folder: Path, split: str, epoch: int, seed: int = 0) -> list[tuple[Any, ...]]:
    clips = getattr(read(folder), split)
    clips.set_epoch(epoch, seed)
    return [key(clips[place]) for place in range(len(clips))]


@pytest.mark.parametrize("buffer", [1, 4, 100])
def test_an_epoch_has_the_samples_of_clips_in_another_order(folder: Path, buffer: int) -> None:
    told = stream(folder, seed=2, buffer=buffer)
    orders = []
    for epoch in range(2):
        told.set_epoch(epoch)
        found = [key(sample) for sample in told]
        expected = of_clips(folder, "train", epoch, seed=2)
        assert sorted(found) == sorted(expected)
        assert found != expected
        orders.append([expected.index(each) for each in found])
        assert found == [key(sample) for sample in told]  # again, the same
    assert orders[0] != orders[1]


def test_evaluation_is_in_order(folder: Path) -> None:
    assert [key(sample) for sample in stream(folder, "val")] == of_clips(folder, "val", 0)


def passes(told: Stream, workers: int, count: int, **settings: Any) -> list[list[Any]]:
    loader = told.loader(4, workers=workers, **settings)
    found = []
    for _ in range(count):
        rows = []
        for audio, visual, target in loader:
            rows += [tuple(row.tolist()) for row in audio]
            assert len(audio) == len(visual.pixels) == len(target)
        found.append(rows)
    return found


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_share_an_epoch_and_see_the_next(
    folder: Path, workers: int, persistent: bool
) -> None:
    told = stream(folder, buffer=3, seconds=0.05)
    found = passes(told, workers, 2, persistent_workers=persistent)
    for epoch, rows in enumerate(found):
        clips = read(folder, seconds=0.05).train
        assert isinstance(clips, Clips)
        clips.set_epoch(epoch)
        expected = [tuple(clips[place][0].tolist()) for place in range(19)]
        assert len(rows) == len(set(rows)) == 19 // workers * workers
        assert set(rows) <= set(expected)
    assert found == passes(stream(folder, buffer=3, seconds=0.05), workers, 2)
    resumed = stream(folder, buffer=3, seconds=0.05)
    resumed.set_epoch(1)
    assert passes(resumed, workers, 1) == found[1:]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("workers", "settings"),
    [(0, {}), (2, {"persistent_workers": True}), (0, {"drop_last": True})],
)
def test_an_epoch_goes_on_in_the_middle(
    folder: Path, split: str, workers: int, settings: dict[str, Any]
) -> None:
    """11 clips of test one by one for 2 workers: one has 5 batches, the other 6."""
    size = {"train": 2, "test": 1}[split]
    loader = stream(folder, split, buffer=3).loader(size, workers=workers, **settings)
    first, whole, after = ([key_of(batch) for batch in loader] for _ in range(3))
    assert (split == "train") == (first != whole)
    for batches in range(len(whole) + 1):
        loader.go_on(1, batches)
        assert [key_of(batch) for batch in loader] == whole[batches:]
    assert [key_of(batch) for batch in loader] == after
    resumed = stream(folder, split, buffer=3).loader(size, workers=workers, **settings)
    resumed.go_on(1, 3)
    assert [key_of(batch) for batch in resumed] == whole[3:]
    resumed.go_on(1, 3)
    resumed.dataset.set_epoch(2)  # not that epoch after all
    assert [key_of(batch) for batch in resumed] == after
    with pytest.raises(eq.SetupError, match=f"0 to {len(whole)} of an epoch, found 99"):
        loader.go_on(0, 99)


def key_of(batch: Any) -> tuple[Any, ...]:
    audio, visual, target = batch
    return (*target.tolist(), audio.sum().item(), visual.box.sum().item())


def test_in_evaluation_workers_leave_nothing_out(folder: Path) -> None:
    (rows,) = passes(stream(folder, "test"), 2, 1)
    assert sorted(rows) == sorted(each[1] for each in of_clips(folder, "test", 0))


def test_the_transform_is_that_of_clips(folder: Path) -> None:
    told, clips = stream(folder, "val", size=20), read(folder, size=20).val
    (batch,), (expected,) = told.loader(9), clips.loader(9)
    made: list[Tensor] = list(told.transform(batch))
    for one, other in zip(made, clips.transform(expected), strict=True):
        assert torch.equal(one, other)
    assert told.modalities == clips.modalities
    assert told.classes == ("calm", "glad", "sad")


def test_a_stream_made_before_its_process_has_a_rank(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stream(folder, "test")
    whole, parts = [key(sample) for sample in told], []
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        told.begin()
        parts.append([key(sample) for sample in told])
    assert parts[0] + parts[1] == whole
    assert min(map(len, parts)) == 5


def test_more_processes_than_clips_are_refused(folder: Path) -> None:
    told = stream(folder)
    with pytest.raises(eq.SetupError, match="19 clips for 40 processes that read: use fewer"):
        list(told._clips(0, 0, 40))
    with pytest.raises(eq.SetupError, match="buffer: expected 1 or more, found 0"):
        stream(folder, buffer=0)


def test_the_datasets_library_reads_the_same_shards(folder: Path) -> None:
    """What others share a prepared folder by."""
    files = sorted(map(str, folder.glob("data/val-*.parquet")))
    theirs = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    names = read(folder).val.names
    assert [row["id"] for row in theirs] == names


# ---------------------------------------------------------------------- over HTTP


class Ranges(BaseHTTPRequestHandler):
    """Serves a folder, whole files or ranges of their bytes, and notes how much."""

    root: Path
    sent: list[int]
    cut = False  # in the middle of what it sends

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        begin, end = 0, len(content)
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            begin, end = int(first), min(int(last or len(content)) + 1, len(content))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[begin : (begin + end) // 2 if self.cut else end])
            self.sent.append(end - begin)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    handler = type("Handler", (Ranges,), {"root": folder, "sent": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("workers", [0, 1])
def test_over_http_it_is_the_same(folder: Path, address: str, workers: int) -> None:
    assert passes(stream(f"{address}/"), workers, 1) == passes(stream(folder), workers, 1)
    with pytest.raises(eq.SetupError, match="no prepared data set"):
        stream(f"{address}/data")


class Failing(Ranges):
    """One time in six it is at fault, too busy, silent, or breaks off in the middle."""

    asked: list[str]  # for what, or how it has failed
    always: list[int]
    chance: random.Random

    def do_GET(self) -> None:
        if self.always and self.path.endswith(".parquet"):
            self.asked.append(self.path)
            self.send_error(self.always[0])
            return
        kind = (
            ""
            if self.chance.random() < 5 / 6
            else self.chance.choice(["503", "429", "gone", "cut"])
        )
        self.asked.append(kind or self.path)
        if kind.isdigit():
            self.send_error(int(kind))
        elif kind == "gone":
            self.connection.close()
        else:
            self.cut = kind == "cut"
            super().do_GET()


@pytest.fixture
def failing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Failing]]]:
    monkeypatch.setattr(again, "PAUSE", 0.001)
    state: dict[str, Any] = {"sent": [], "asked": [], "always": [], "chance": random.Random(1)}
    handler = type("Handler", (Failing,), {"root": folder, **state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_a_server_fails_to_give_is_asked_for_again(
    folder: Path, failing: tuple[str, type[Failing]]
) -> None:
    address, handler = failing
    told = stream(address, buffer=3)
    assert passes(told, 0, 4) == passes(stream(folder, buffer=3), 0, 4)
    assert {"503", "429", "gone", "cut"} <= set(handler.asked)

    handler.always.append(503)
    before = len(handler.asked)
    with pytest.raises(ConnectionError, match=r"gave up after 6 tries over .*503.*loader\.go_on"):
        passes(told, 0, 1)
    assert 6 <= len(handler.asked) - before <= 24
    handler.always[:] = [404]
    before = len(handler.asked)
    with pytest.raises(eq.SetupError, match=r"parquet is missing: run the same"):
        passes(told, 0, 1)
    assert len(handler.asked) - before <= 4


def test_a_folder_of_this_machine_is_not_asked_twice() -> None:
    with pytest.raises(OSError, match="no more"):
        again.Patience("/data/all").wait(OSError("no more"))
