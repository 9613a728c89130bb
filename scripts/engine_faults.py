"""A study that is killed and interrupted at random moments, against one that nobody disturbs.

    python scripts/engine_faults.py [compare|choose] [--kills 10] [--interrupts 50]
        [--within SECONDS] [--seed 0]

Processes are ended as a crash or the system ends them: workers and the driver by SIGKILL, the
whole by Ctrl-C. It says what came of it, and ends with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDIES = {
    "compare": [
        "compare", "mfeat", "--modalities=[pix,mor,fou]", "--batch-size=400", "--rows=[joint, ogm]",
        "--alphas=[0.1]", "--workers=2", "--epochs=3",
    ],
    "choose": [
        "choose", "mfeat", "--modalities=[mor,fou]", "--batch-size=400", "--methods=[ogm]",
        "--budget=60", "--workers=2", "--epochs=1",
    ],
}  # fmt: skip
TABLES = {"compare": ("runs.csv", "table.md"), "choose": ("table.md", "choice.json")}
FIRST = 1.0  # seconds until Python itself has begun, which our code cannot hear
INTERRUPTED = 130


def started(folder: Path, seeds: int) -> subprocess.Popen[str]:
    """Start the study in a session of its own; a choice has the seeds of its budget."""
    told = [] if folder.parent.name == "choose" else [f"--seeds={seeds}"]
    study = STUDIES[folder.parent.name]
    command = [sys.executable, "-m", "equimodal", *study, *told, f"--out={folder}"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def others(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a study has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = int(path.read_text().rpartition(")")[2].split()[3])
            if session == process.pid != int(path.parent.name):
                found.append(int(path.parent.name))
    return sorted(found)


def tables(folder: Path) -> list[bytes]:
    """Return what a study ends with."""
    return [(folder / name).read_bytes() for name in TABLES[folder.parent.name]]


def when_done(folder: Path) -> dict[str, int]:
    """Return when each run was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}


def killed(folder: Path, kills: int, seconds: float, chance: random.Random) -> tuple[int, int]:
    """Kill workers and drivers of studies until so many are; return how many of each."""
    workers = drivers = 0
    process = started(folder, 4)
    while workers + drivers < kills:
        time.sleep(chance.uniform(0.2, 1.0) * seconds)
        if process.poll() is not None:
            shutil.rmtree(folder)
            process = started(folder, 4)
            continue
        living = others(process)
        if chance.random() < 0.5 and living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(living), signal.SIGKILL)
                workers += 1
        else:
            process.kill()
            process.communicate()
            drivers += 1
            process = started(folder, 4)
    process.communicate()
    if process.returncode:  # what forks the workers may have been killed, too often in a row
        started(folder, 4).communicate()
    return workers, drivers


def interrupted(folder: Path, times: int, seconds: float, chance: random.Random) -> list[str]:
    """Interrupt studies at moments from their first on; return what was wrong."""
    wrong = []
    for number in range(times):
        moment = FIRST + seconds * (number + chance.random()) / times
        process = started(folder, 4)
        time.sleep(moment)
        early = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()
        if early or process.returncode == 0:
            shutil.rmtree(folder, ignore_errors=True)  # it was done before
        elif process.returncode != INTERRUPTED or "Traceback" in said:
            wrong.append(f"after {moment:.2f} s: status {process.returncode}: {said[-2000:]}")
            print(wrong[-1], flush=True)
        print(f"Ctrl-C {number + 1} of {times}: {len(wrong)} wrong", end="\r", flush=True)
    return wrong


def main() -> int:
    """Disturb studies, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", choices=STUDIES, default="compare")
    parser.add_argument(
        "--within", type=float, help="the first seconds, in which Ctrl-C comes [all]"
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--interrupts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, bad = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above, given.study)
        quiet = Path(folder, "quiet")
        start = time.monotonic()
        started(quiet, 4).communicate()
        seconds = time.monotonic() - start
        print(f"undisturbed: {seconds:.0f} s", flush=True)
        if given.kills:
            disturbed = Path(folder, "killed")
            workers, drivers = killed(disturbed, given.kills, seconds, chance)
            same = tables(quiet) == tables(disturbed)
            bad += not same
            what = "the same, bit for bit" if same else "OTHERWISE"
            print(f"{workers} workers and {drivers} drivers killed: {what}", flush=True)
        if given.interrupts:
            within = given.within or seconds
            wrong = interrupted(Path(folder, "stopped"), given.interrupts, within, chance)
            bad += len(wrong)
            print(
                f"Ctrl-C at {given.interrupts} moments: {len(wrong)} ended otherwise than quietly"
            )
        if given.study == "choose":
            return 1 if bad else 0
        before = when_done(quiet)
        started(quiet, 5).communicate()
        after = when_done(quiet)
        kept = before.items() <= after.items()
        bad += not kept or len(after) == len(before)
        what = "nothing repeated" if kept else "RUNS REPEATED"
        print(f"extended by a seed: {len(after) - len(before)} runs more, {what}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
