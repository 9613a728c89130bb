"""Preparing that is stopped: by kills, crashes, full disks, other processes and changed sources."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from equimodal.data.layouts.clip import Failure, Listing
from equimodal.data.preparing import MissingClipsError, Progress, Summary, folder
from equimodal.errors import SetupError
from equimodal.tasks import HOLD, locked
from support.raw_clips import Run, files_of, listed, make_source, prepared

if not Path("/proc/self/stat").exists():
    pytest.skip("looks for processes in /proc", allow_module_level=True)

# Imported once, and forked for each process that is killed.
SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload(["support.raw_clips", "datasets", "pyarrow.parquet"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("clips") / "raw", 20)


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run makes of all clips, five times each."""
    out = tmp_path_factory.mktemp("whole") / "out"
    prepared(listed(source, times=5), out)
    return out


@pytest.fixture(scope="module")
def whole(finished: Path) -> dict[str, str]:
    return files_of(finished)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def holds(pid: int, path: Path) -> bool:
    """Whether a process has this file open."""
    with contextlib.suppress(OSError):  # it has just ended
        return any(entry.resolve() == path for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False


class Started:
    """A process that prepares, with workers of its own."""

    def __init__(
        self, listing: Listing, out: Path, site: Path | None = None, **options: Any
    ) -> None:
        self.pipe, theirs = SERVED.Pipe(duplex=False)
        for wait in (0.1, 0.5, 2.0, None):
            forkserver.ensure_running()
            server = forkserver._forkserver._forkserver_address
            run = Run(listing, out, options, site, server)
            self.process = SERVED.Process(target=run, args=(theirs,))
            try:
                self.process.start()
                break
            except (EOFError, OSError):
                # One that was killed in the middle of asking it for a worker has ended it.
                if wait is None:
                    raise
                time.sleep(wait)
        theirs.close()

    def told(self) -> Any:
        """Return what it says next: how many clips are done, then a summary or an error."""
        return self.pipe.recv()

    def end(self) -> Any:
        """Return what it says last."""
        while isinstance(said := self.told(), int):
            pass
        self.process.join()
        return said

    def worker(self) -> int | None:
        """Return the number of its only worker process; None if none has begun.

        Workers of others are gone by the time it has told something: they held the lock.
        """
        server = forkserver._forkserver._forkserver_pid
        return next((pid for pid in children(server) if pid != self.process.pid), None)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def test_killed_at_ten_random_moments_it_ends_with_the_same_files(
    source: Path, tmp_path: Path, whole: dict[str, str]
) -> None:
    """The process or its worker; as soon as a folder is finished, another one."""
    chosen = random.Random(1)
    listing = listed(source, times=5)
    kills: list[str] = []
    rounds = 0
    while len(kills) < 10:
        rounds += 1
        out = tmp_path / str(rounds)
        run, said = Started(listing, out), None
        while len(kills) < 10 and not isinstance(said, Summary):
            for _ in range(chosen.randrange(1, 40)):
                said = said if isinstance(said, Summary) else run.told()
            time.sleep(chosen.random() * 0.03)
            if isinstance(said, Summary):
                continue
            worker = run.worker() if chosen.random() < 0.5 else None
            if worker is not None:
                os.kill(worker, signal.SIGKILL)
                kills.append("worker")
            else:
                run.kill()
                kills.append("all")
                shards = {name for name in files_of(out) if name.endswith(".parquet")}
                assert shards <= set(whole), "under no other name than that of a whole one"
                leave_half(out)
                run = Started(listing, out)
        assert isinstance(said if isinstance(said, Summary) else run.end(), Summary)
        assert files_of(out) == whole
    assert set(kills) == {"worker", "all"}


def leave_half(out: Path) -> None:
    """Leave what a kill can leave at moments that last too short to be met by chance."""
    for name in ("data/train-00000-of-00008.parquet", "shards/val-00000-of-00003.json"):
        (out / f"{name}.partial").write_bytes(b"half")
    for name in ("plan.json", "README.md", "dataset.json", "failures.csv"):
        (out / f"{name}.partial").write_text("{")
    (out / "shards" / "train-00001-of-00008.json").write_text('{"file": "data/train-0')
    (out / "data" / "test-00002-of-00003.parquet").write_bytes(b"PAR1")


def test_killed_before_the_plan_is_there_it_can_begin(source: Path, tmp_path: Path) -> None:
    (tmp_path / HOLD).touch()
    (tmp_path / "plan.json.partial").write_text('{"format": 1, "na')
    assert prepared(listed(source), tmp_path).decoded == 20


def test_workers_that_are_killed_are_replaced(
    source: Path, tmp_path: Path, whole: dict[str, str]
) -> None:
    moments = [0, 9, 40, 71]

    def kill(state: Progress) -> None:
        if moments and state.done >= moments[0]:
            worker = random.Random(state.done).choice(multiprocessing.active_children())
            os.kill(worker.pid, signal.SIGKILL)
            moments.pop(0)

    prepared(listed(source, times=5), tmp_path / "out", workers=2, show=kill)
    assert not moments
    assert files_of(tmp_path / "out") == whole


# Python imports a module of this name in every process that it starts.
PATCH = """
import os, signal, time
import av

opened = av.open

def open_(path, *args, **options):
    if path.endswith("c003.mpg"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.endswith("c005.mpg") and not os.path.exists({once!r}):
        open({once!r}, "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.endswith("c008.mpg") and not os.path.exists({corrected!r}):
        raise ZeroDivisionError("never heard of")
    if path.endswith("c013.mpg"):
        time.sleep(1000)
    return opened(path, *args, **options)

av.open = open_
"""


def test_a_decoder_that_crashes_or_hangs_and_a_mistake(source: Path, tmp_path: Path) -> None:
    """Twice at one clip: it is left out; once at another: it is not; a mistake is its row."""
    once, corrected, out = tmp_path / "once", tmp_path / "corrected", tmp_path / "out"
    options: dict[str, Any] = {"allow_missing": 0.1, "time_limit": 1.0}
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        PATCH.format(once=str(once), corrected=str(corrected))
    )
    listing = listed(source)

    wrong = tmp_path / "wrong"
    error = Started(listing, wrong, tmp_path / "site", **options).end()
    assert "3 of 20 clips" in str(error)
    assert "ZeroDivisionError: never heard of" in (wrong / "failures.csv").read_text()
    assert not [name for name in files_of(wrong) if "partial" in name]

    corrected.touch()
    summary = Started(listing, out, tmp_path / "site", workers=2, **options).end()
    assert once.exists()
    assert summary.reasons == {"decoder crashed": 1, "took too long": 1}
    assert (out / "failures.csv").read_text().splitlines()[1:] == [
        "c003-0,c003.wav,train,decoder crashed: Segmentation fault",
        "c013-0,c013.wav,train,took too long: more than 1 s",
    ]
    again = Started(listing, tmp_path / "again", tmp_path / "site", **options).end()
    assert again.fingerprint == summary.fingerprint
    assert files_of(tmp_path / "again") == files_of(out)


def test_workers_that_cannot_start_are_not_tried_for_ever(source: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "from equimodal.tasks import local\nlocal.signal = None\n"
    )
    error = Started(listed(source), tmp_path / "out", tmp_path / "site").end()
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("3 workers in a row ended with status 1 before they had a clip")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 160 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "none", place], capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs privileges that are not there")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing_half(
    source: Path, small_disk: Path, tmp_path: Path, whole: dict[str, str]
) -> None:
    listing, out = listed(source, times=5), small_disk / "out"
    with pytest.raises(OSError, match=r"out: no room left on the disk: make room") as full:
        prepared(listing, out)
    assert "\n" not in str(full.value)
    held = files_of(out)
    assert "dataset.json" not in held
    assert not [name for name in held if "partial" in name]
    assert sum(name.endswith(".parquet") for name in held) >= 1, "finished shards stay"
    wholes = {name: digest for name, digest in whole.items() if name in held}
    held.pop("failures.csv")
    wholes.pop("failures.csv")
    assert held == wholes
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert prepared(listing, out).decoded < 100
    assert files_of(out) == whole
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match=r"out/\.equimodal\.lock: Read-only file system: allow it"):
        prepared(listing, out)


def test_two_processes_do_not_prepare_into_one_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out" / HOLD, ""),
        pytest.raises(SetupError, match="another process is at work in it"),
    ):
        prepared(listed(source), tmp_path / "out")


def test_a_worker_that_outlives_its_parent_keeps_others_out(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, str]
) -> None:
    """It might still write beside theirs."""
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    out = tmp_path / "out"
    run = Started(listed(source, times=5), out)
    run.told()
    held = False
    while not held:
        assert isinstance(run.told(), int)
        if (worker := run.worker()) is not None:
            os.kill(worker, signal.SIGSTOP)
            held = holds(worker, out / HOLD)
            if not held:  # it is new
                os.kill(worker, signal.SIGCONT)
    assert worker is not None
    run.kill()
    with pytest.raises(SetupError, match=r"process \d+ \(.*is at work in it"):
        prepared(listed(source, times=5), out)
    os.kill(worker, signal.SIGCONT)
    monkeypatch.setattr(folder, "PATIENCE", 10.0)
    with folder.locked(out):
        pass  # it ended when it found its parent gone


def test_another_source_is_refused_until_it_is_wanted(
    finished: Path, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "notes.txt").write_text("mine")
    (out / "data" / "more.parquet").write_text("mine")
    listing = listed(source)
    with pytest.raises(SetupError) as refused:
        prepared(listing, out)
    assert str(refused.value) == (
        f"{out} was begun from another source, or otherwise: clips gone (80): c000-1, c001-1, "
        "c002-1, ...: give --fresh to make it anew, or name another --out"
    )
    prepared(listing, tmp_path / "expected")
    prepared(listing, out, fresh=True)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    (out / "data" / "more.parquet").unlink()
    assert files_of(out) == files_of(tmp_path / "expected")


def test_a_damaged_plan_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(SetupError, match=r"plan.json is damaged, or of another version"):
        prepared(listed(source), tmp_path)


def test_a_folder_of_other_things_is_refused_and_left_alone(source: Path, tmp_path: Path) -> None:
    for name in ("README.md", "a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("mine")
    before = files_of(tmp_path)
    for fresh in (False, True):
        with pytest.raises(SetupError, match=r"other things \(README.md, a.txt, b.txt, ...\)"):
            prepared(listed(source), tmp_path, fresh=fresh)
    with pytest.raises(SetupError, match=r"a.txt is a file, expected a folder"):
        prepared(listed(source), tmp_path / "a.txt")
    assert files_of(tmp_path) == before


def test_too_many_failures_keep_the_shards_and_the_flag_goes_on(tmp_path: Path) -> None:
    source = make_source(tmp_path / "raw", 20)
    for place in (2, 6):
        (source / f"c{place:03d}.mpg").write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(MissingClipsError, match=r"2 of 20 clips \(10.0%\) are missing, 1% are"):
        prepared(listed(source), out)
    assert not (out / "dataset.json").exists()
    assert (out / "failures.csv").read_text().count("empty file") == 2
    assert prepared(listed(source), out, allow_missing=0.1).decoded == 0
    assert (out / "dataset.json").exists()


def test_a_hopeless_listing_is_refused_before_decoding(source: Path, tmp_path: Path) -> None:
    gone = [Failure(f"gone{i}", f"gone{i}.wav", "test", "no such file") for i in range(5)]
    with pytest.raises(MissingClipsError, match=r"5 of 25 clips \(20.0%\)"):
        prepared(listed(source, failures=gone), tmp_path / "out")
    assert not list((tmp_path / "out" / "data").iterdir())
    assert (tmp_path / "out" / "failures.csv").read_text().count("no such file") == 5
