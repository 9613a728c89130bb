"""Findings: each script pins what it installs, can be run, says its version and is in the list."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
HEADINGS = ("One would swear:", "What happens:", "Seen with:", "Why it matters:", "In equimodal:")


def installed(text: str) -> list[str]:
    """Return what the lines of a script hand to `pip install`, options left out."""
    commands = [line for line in text.splitlines() if re.search(r"\bpip3? install\b", line)]
    words = [shlex.split(line.split("install", 1)[1], comments=True) for line in commands]
    return [word for line in words for word in line if not word.startswith("-")]


def rows() -> dict[str, str]:
    """Return the lines of the list by the script they are about."""
    found = re.findall(r"^\| `([^`]+\.sh)` \| ([^|]+) \|", (FOLDER / "README.md").read_text(), re.M)
    assert len(found) == len(dict(found)), "a script is listed twice"
    return dict(found)


@pytest.mark.parametrize("text", ["pip install numpy", "venv/bin/pip install -q a==1 b>=2"])
def test_what_is_not_pinned_is_seen(text: str) -> None:
    """The check below can fail."""
    assert not all("==" in package for package in installed(text))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_whole(script: Path) -> None:
    """It pins each package, cleans up, stops at errors, runs, and leaves our code out."""
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert os.access(script, os.X_OK)
    for needed in ("set -euo pipefail", "mktemp -d", "trap "):
        assert needed in text, needed
    packages = installed(text)
    assert packages
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", p) for p in packages), packages
    assert not re.search(r"^\s*(import|from)\s+equimodal\b", text, re.M)
    assert "index-url" not in text
    assert "find-links" not in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_says_what_it_found(script: Path) -> None:
    """The comment has its five parts, with a version that is the one installed; so has the list."""
    text = script.read_text()
    comment = " ".join(
        line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")
    )
    places = [comment.find(heading) for heading in HEADINGS]
    assert -1 not in places
    assert places == sorted(places)
    seen = comment[places[2] : places[3]]
    versions = [package.split("==")[1] for package in installed(text)]
    assert any(version in seen for version in versions), seen
    listed = rows()[script.name]
    for package, version in re.findall(r"([\w-]+) ([\d.]+)", listed):
        assert f"{package}=={version}" in installed(text)


def test_the_list_is_complete() -> None:
    """No script without a line, no line without a script."""
    assert SCRIPTS
    assert set(rows()) == {script.name for script in SCRIPTS}
