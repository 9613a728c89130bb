"""The command `equimodal download`: terms first, refusals, and real interruptions."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from equimodal.cli import main
from equimodal.data.download.publishers import crema_d
from equimodal.data.layouts.grid import GRID
from support import offered
from support.publisher import Fault, Publisher, publishing

INDEX = crema_d().index
assert INDEX is not None
GRID_S11 = ["grid", "--talkers", "s11"]


def command(publisher: Publisher, folder: Path, *arguments: str) -> list[str]:
    return ["download", *arguments, "--out", str(folder), "--mirror", publisher.address]


def started(arguments: list[str], **how: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "equimodal", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **how,  # type: ignore[call-overload]
    )


def wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(1500):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen within 30 s")


def test_terms_are_shown_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --yes nobody has accepted them: pytest's input is no terminal."""
    with publishing(offered.grid()) as publisher:
        assert main(command(publisher, tmp_path / "raw", *GRID_S11)) == 2
        assert publisher.asked == []
    out, err = capsys.readouterr()
    assert out.startswith("GRID audio-visual sentence corpus: s11\n")
    for part in ("licence", "CC BY 4.0", "Cooke", "https://zenodo.org/records/3625687", "are free"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 100
    assert err.startswith("equimodal: expected --yes")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("\n", 1)])
def test_a_person_is_asked(tmp_path: Path, answer: str, status: int) -> None:
    """At a real terminal."""
    ours, theirs = pty.openpty()
    with publishing(offered.grid()) as publisher:
        process = started(command(publisher, tmp_path / "raw", *GRID_S11), stdin=theirs)
        os.write(ours, answer.encode())
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert bool(publisher.asked) == (status == 0)
    os.close(ours)
    os.close(theirs)
    assert "Fetch it under these terms? [y/N]" in out
    if status:
        assert err == "equimodal download: nothing was fetched\n"


def test_grid_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with publishing(offered.grid()) as publisher:
        arguments = [*command(publisher, tmp_path, "grid", "--talkers", "s11", "s12"), "--yes"]
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        assert f"grid is in {tmp_path}: 3 files fetched, 0 were there." in " ".join(out.split())
        assert "the SHA-256 of the first download is kept" in " ".join(out.split())
        following = f"equimodal prepare grid --source {tmp_path} --out {tmp_path}-prepared"
        assert out.endswith(f"Next: {following}\n")
        assert "alignments.zip (3 of 3), 100%" in err
        assert "Downloading" not in err, "pooch says nothing beside the progress"
        publisher.asked.clear()
        assert main(arguments) == 0
        assert publisher.asked == []
        assert "0 files fetched, 3 were there" in " ".join(capsys.readouterr().out.split())
    assert len(GRID(tmp_path, slots=("command",)).listing().clips) == 8


def test_crema_d_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with publishing(offered.crema_d(INDEX.name, range(1001, 1004))) as publisher:
        assert main([*command(publisher, tmp_path, "crema-d"), "--yes"]) == 0
    assert len(list(tmp_path.glob("VideoFlash/*.flv"))) == 6
    assert "Open Database License" in capsys.readouterr().out


def test_a_wrong_copy_of_mnist_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checksums that are built in hold for a mirror too."""
    with publishing(offered.digits()) as publisher:
        assert main([*command(publisher, tmp_path, "mnist"), "--yes"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "expected md5:f68b3c2dcbeaaa9fbdd348bbdeb94873, found md5:" in error
    aside = tmp_path / "downloads" / "train-images-idx3-ubyte.gz.wrong"
    assert str(aside) in error
    assert aside.exists()
    assert not (tmp_path / "mnist").exists()


def test_ctrl_c_in_the_middle_and_the_same_command_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with publishing(offered.grid(size=100_000)) as publisher:
        arguments = [*command(publisher, tmp_path, *GRID_S11), "--yes"]
        publisher.faults["/s11.zip"] = [Fault(after=250_000, stalls=True)]
        process = started(arguments)
        partial = tmp_path / "downloads" / "s11.zip.partial"
        wait_for(lambda: partial.exists() and partial.stat().st_size > 200_000)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "equimodal: interrupted: the same command goes on"
        assert "Traceback" not in err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["downloads"]
        held = partial.stat().st_size
        publisher.asked.clear()
        assert main(arguments) == 0
    first = publisher.asked[0]
    assert (first.range, first.sent) == (
        f"bytes={held}-",
        len(publisher.files["/s11.zip"]) - held,
    )
    assert len(list((tmp_path / "s11").iterdir())) == 4
    assert "2 files fetched" in " ".join(capsys.readouterr().out.split())


def test_killed_without_warning_it_goes_on(tmp_path: Path) -> None:
    with publishing(offered.grid(size=100_000)) as publisher:
        arguments = [*command(publisher, tmp_path, *GRID_S11), "--yes"]
        publisher.faults["/s11.zip"] = [Fault(after=250_000, stalls=True)]
        process = started(arguments)
        partial = tmp_path / "downloads" / "s11.zip.partial"
        wait_for(lambda: partial.exists() and partial.stat().st_size > 100_000)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        publisher.asked.clear()
        assert main(arguments) == 0
    assert publisher.asked[0].status == 206
    assert len(list((tmp_path / "s11").iterdir())) == 4


def test_a_dead_network_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with publishing(offered.grid()) as publisher:
        arguments = [*command(publisher, tmp_path, *GRID_S11), "--yes", "--retries=0"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "/s11.zip: the server does not answer; 0 bytes are here, and the same" in error


@pytest.mark.parametrize(
    ("name", "address"),
    [("vggsound", "robots.ox.ac.uk"), ("kinetics-sounds", "github.com/cvdfoundation")],
)
def test_what_has_no_address_says_where_to_ask(
    capsys: pytest.CaptureFixture[str], name: str, address: str
) -> None:
    assert main(["download", name]) == 1
    out = capsys.readouterr().out
    assert address in out
    assert f"equimodal prepare {name} --source RAW" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("gird --out {}", "unknown data set 'gird': did you mean 'grid'?"),
        ("grid", "--out: expected a folder for the files, found none"),
        ("grid --out {} --talkers s21", "--talkers: unknown talker 's21'"),
        ("grid --out {} --talkers s1 s1", "--talkers: expected one or more, none twice"),
        ("ave --out {} --talkers s1", "--talkers: ave has none"),
        ("grid --out {} --miror http://x", "unknown option '--miror': did you mean '--mirror'?"),
        ("grid --out {} --mirror ftp://x", "--mirror: expected an address with http://"),
        ("grid --out {} --timeout 0", "--timeout: expected seconds above 0, found 0"),
        ("grid --out {} --retries -1", "--retries: expected 0 or more, found -1"),
        ("grid --out {}/file/raw --yes", "--out: .* is a file, expected a folder"),
    ],
)
def test_wrong_use_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["download", *arguments.format(tmp_path).split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("equimodal: ")
    assert re.search(message, err), err


def test_help_fits_into_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--talkers" in out
    assert max(map(len, out.splitlines())) <= 80
