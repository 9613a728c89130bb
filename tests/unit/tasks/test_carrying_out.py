"""Tasks on this machine: done once, whatever happens to their processes and to the driver."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equimodal.errors import SetupError
from equimodal.tasks import Engine, Local, Lock, carry_out, engine_of, locked, place
from equimodal.tasks.lock import held
from equimodal.tasks.task import perform
from support.chores import chore

if not Path("/proc/self/stat").exists():
    pytest.skip("looks for processes in /proc", allow_module_level=True)


def reasons(engine: Engine, tasks: list) -> dict[str, str]:
    with engine:
        return {o.task.name: o.reason for o in carry_out(engine, tasks) if o is not None}


def test_what_goes_wrong_costs_itself(tmp_path: Path) -> None:
    """A crash, a hang in C that keeps the interpreter, an error, a full disk, a silent end."""
    tasks = [
        chore("good", tmp_path, number=3),
        chore("crash", tmp_path, "crash"),
        chore("hang", tmp_path, "hang", limit=1.0),
        chore("error", tmp_path, "fail", said="what was expected"),
        chore("full", tmp_path, "full"),
        chore("leaves", tmp_path, "leave", status=7),
        chore("forgets", tmp_path, "forget"),
        chore("dies once", tmp_path, number=4, **{"dies at": 2}),
        chore("processes", tmp_path, "start_processes"),
        chore("unknown", tmp_path, "nothing of this name"),
    ]
    found = reasons(Local(3), tasks)
    assert found == {
        "good": "",
        "crash": "its process ended by SIGSEGV, 3 times",
        "hang": "took too long: more than 1 s",
        "error": "what was expected",
        "full": f"OSError: [Errno 28] no room: '{tmp_path / 'full'}'",
        "leaves": "its process ended with status 7, 3 times",
        "forgets": "it ended without a result",
        "dies once": "",
        "processes": "",
        "unknown": "AttributeError: module 'support.chores' has no attribute 'nothing of this name'",
    }
    assert (tmp_path / "crash" / "tries").read_text() == "xxx"
    assert (tmp_path / "good" / "result.json").read_text() == "9"
    assert (tmp_path / "dies once" / "result.json").read_text() == "16"
    assert place(tmp_path / "good") is None
    assert (
        "sleep" in (tmp_path / "hang" / "late.txt").read_text()
        or "hang" in (tmp_path / "hang" / "late.txt").read_text()
    )
    assert "Traceback" in json.loads((tmp_path / "error" / "failed.json").read_text())["traceback"]


def test_tasks_find_imported_what_they_need_whatever_forked_processes_before(
    tmp_path: Path,
) -> None:
    """A notebook that has prepared data, or begun a process of its own, has such a server."""
    before = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(0.0,))
    before.start()
    before.join()
    for module in ("xml.dom.pulldom", "wsgiref.handlers"):  # a second engine needs something else
        task = chore(module, tmp_path, "imported", module=module)
        assert reasons(Local(1, [module]), [task]) == {module: ""}
        assert json.loads((tmp_path / module / "result.json").read_text())


def test_done_is_done_and_more_adds_to_it(tmp_path: Path) -> None:
    first = [chore(str(n), tmp_path, number=n) for n in range(2)]
    assert reasons(Local(2), first) == {"0": "", "1": ""}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert set(reasons(Local(2), [*first, chore("2", tmp_path, number=2)])) == {"0", "1", "2"}
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_a_failure_is_forgotten_when_it_is_tried_again(tmp_path: Path) -> None:
    assert reasons(Local(1), [chore("a", tmp_path, "fail", said="no")])["a"]
    assert reasons(Local(1), [chore("a", tmp_path, number=1)]) == {"a": ""}
    assert not (tmp_path / "a" / "failed.json").exists()


def test_a_full_disk_is_said_though_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = "size=16k"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "none", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs privileges that are not there")
    try:
        (disk / "a").mkdir()
        with pytest.raises(OSError, match="No space"):
            (disk / "filler").write_bytes(b"x" * 100_000)
        with Local(1) as engine:
            (end,) = [o for o in carry_out(engine, [chore("a", disk, number=2)]) if o]
        assert end.reason.startswith("no room left on the disk")
    finally:
        subprocess.run(["umount", disk], check=True)


DRIVER = """
import sys
from pathlib import Path
from equimodal.tasks import Local, carry_out, locked
from support.chores import chore

if __name__ == "__main__":
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    tasks = [chore(str(n), folder, number=n, seconds=seconds) for n in range(12)]
    try:
        with locked(folder / "lock", "another", 10.0) as lock, Local(2, (), lock) as engine:
            print("begun", flush=True)
            for outcome in carry_out(engine, tasks):
                if outcome is not None:
                    print(outcome.task.name, outcome.reason, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def drive(folder: Path, seconds: float = 0.01) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    script = folder.parent / "driver.py"
    script.write_text(DRIVER)
    paths = os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parents[2])])
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip


def living(group: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


def gone(group: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while living(group):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def sums(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in folder.glob("*/result.json")}


WHOLE = {str(n): str(n * n) for n in range(12)}


def test_killed_at_ten_random_moments_nothing_differs(tmp_path: Path) -> None:
    """Its processes or the driver itself, by SIGKILL."""
    rng = random.Random(0)
    folder, kills = tmp_path / "tasks", 0
    process = drive(folder, 0.05)
    while kills < 10:
        if process.poll() is not None:  # it has finished: begin anew
            process.communicate()
            for path in folder.glob("*/*.json"):
                path.unlink()
            process = drive(folder, 0.05)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.random() * 0.2)
        others = [pid for pid in living(process.pid) if pid != process.pid]
        if kills % 2 and len(others) > 1:
            # The newest are workers; the one that they are forked from is older.
            os.kill(max(others), signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
            process.communicate()
            assert gone(process.pid), "processes end with the driver"
            process = drive(folder, 0.05)
        kills += 1
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert sums(folder) == WHOLE
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.1, 0.3])
def test_interrupted_it_ends_at_once_and_quietly(moment: float, tmp_path: Path) -> None:
    process = drive(tmp_path / "tasks", 0.1)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert gone(process.pid)
    process = drive(tmp_path / "tasks")
    process.communicate(timeout=60)
    assert sums(tmp_path / "tasks") == WHOLE


def test_a_process_that_outlives_the_driver_keeps_others_out(tmp_path: Path) -> None:
    process = drive(tmp_path / "tasks", 0.2)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    worker = max(pid for pid in living(process.pid) if pid != process.pid)
    os.kill(worker, signal.SIGSTOP)
    process.kill()
    process.wait()
    lock = tmp_path / "tasks" / "lock"
    assert held(lock)
    with pytest.raises(SetupError, match="somebody"), locked(lock, "somebody", 0.1):
        pass
    os.kill(worker, signal.SIGCONT)
    with locked(lock, "somebody", 10.0) as got:
        assert isinstance(got, Lock)
    process.communicate()
    assert not held(lock)
    assert not held(tmp_path / "no such file")


def test_a_task_is_what_json_can_hold(tmp_path: Path) -> None:
    task = chore("a", tmp_path, number=2, more={"of": (1, 2)})
    assert perform(task) == 0
    assert task.done


def test_engines_have_names(tmp_path: Path) -> None:
    assert isinstance(engine_of("local", tmp_path), Local)
    with pytest.raises(SetupError, match=r"unknown engine 'rai': did you mean 'ray'"):
        engine_of("rai", tmp_path)
    with pytest.raises(SetupError, match=r"SLURM gives whole ones, found 0\.5"):
        engine_of("slurm", tmp_path, gpus=0.5)
