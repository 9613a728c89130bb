"""Examples in pairs, plain and balanced: how they differ, how they run, what a page shows of it."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ALONE = (sys.executable,)
TWO_RANKS = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def changed_lines(plain: Path, balanced: Path) -> int:
    """How many lines one has to write, change or delete to get from one file to the other."""
    matcher = difflib.SequenceMatcher(None, lines(plain), lines(balanced), autojunk=False)
    return sum(
        max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal"
    )


def diff(plain: Path, balanced: Path) -> str:
    """The unified diff with one line around each change, without its two header lines."""
    return "\n".join(
        list(difflib.unified_diff(lines(plain), lines(balanced), n=1, lineterm=""))[2:]
    )


def assert_page_shows_diff(page: Path, plain: Path, balanced: Path) -> None:
    block = f"```diff\n{diff(plain, balanced)}\n```"
    assert block in page.read_text(), f"{page} shows another diff than\n\n{block}"


def run(*scripts: Path, launcher: Sequence[str] = ALONE, timeout: float = 300) -> list[str]:
    """Run scripts at the same time, each in a process of its own, and return what they print."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*launcher, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for script in scripts
    ]
    printed = []
    try:
        for script, process in zip(scripts, processes, strict=True):
            out, err = process.communicate(timeout=timeout)
            assert process.returncode == 0, f"{script.name}:\n{err}"
            printed.append(out)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return printed
