"""One file from a publisher: resumed, checked, and never half in its place."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from equimodal.data.download.failure import DownloadError
from equimodal.data.download.fetching import Fetcher
from equimodal.data.download.published import File
from support.publisher import Fault, Publisher, publishing

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
PATH = "/clips.zip"


def fetch(
    publisher: Publisher, folder: Path, checksum: str | None = MD5, **settings: float
) -> bool:
    shown: list[tuple[int, int]] = []
    fetcher = Fetcher(folder, **({"timeout": 5, "retries": 0} | settings))  # type: ignore[arg-type]
    file = File("clips.zip", publisher.address + PATH, checksum)
    fetched = fetcher.fetch(file, folder / "clips.zip", lambda *now: shown.append(now))
    if fetched and shown:
        assert shown[-1] == (len(CONTENT), len(CONTENT))
        assert all(here <= total for here, total in shown)
    return fetched


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        assert fetch(publisher, tmp_path)
        assert not fetch(publisher, tmp_path)
    assert [each.sent for each in publisher.asked] == [len(CONTENT)]
    assert (tmp_path / "clips.zip").read_bytes() == CONTENT
    assert left(tmp_path) == ["clips.zip"]


@pytest.mark.parametrize("checksum", [MD5, None], ids=["stated", "not stated"])
def test_a_broken_connection_is_taken_up_where_it_broke(
    tmp_path: Path, checksum: str | None
) -> None:
    """Within one call: nothing is sent twice but what was under way when it broke."""
    with publishing({PATH: CONTENT}) as publisher:
        publisher.faults[PATH] = [Fault(after=100_000), Fault(after=100_000)]
        assert fetch(publisher, tmp_path, checksum)
    assert [each.status for each in publisher.asked] == [200, 206, 206]
    assert publisher.sent() < len(CONTENT) + 2 * (1 << 15)
    assert (tmp_path / "clips.zip").read_bytes() == CONTENT


def test_a_second_call_asks_for_the_rest_only(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        publisher.faults[PATH] = [Fault(after=200_000), Fault(after=0)]
        with pytest.raises(DownloadError, match=r"of 300.0 kB are here, and the same command goes"):
            fetch(publisher, tmp_path)
        held = (tmp_path / "clips.zip.partial").stat().st_size
        assert 200_000 - (1 << 15) < held <= 200_000
        assert not (tmp_path / "clips.zip").exists()
        publisher.asked.clear()
        assert fetch(publisher, tmp_path)
    assert [(each.range, each.sent) for each in publisher.asked] == [
        (f"bytes={held}-", len(CONTENT) - held)
    ]
    assert (tmp_path / "clips.zip").read_bytes() == CONTENT
    assert left(tmp_path) == ["clips.zip"]


@pytest.mark.parametrize("tags", [True, False], ids=["with ETag", "without"])
def test_a_file_that_has_changed_is_fetched_anew(tmp_path: Path, tags: bool) -> None:
    """Without a checksum: only the version's name tells; without one nothing is resumed."""
    with publishing({PATH: OTHER}, tags=tags) as publisher:
        publisher.faults[PATH] = [Fault(after=200_000), Fault(after=0)]
        with pytest.raises(DownloadError):
            fetch(publisher, tmp_path, None)
        publisher.files[PATH] = CONTENT
        publisher.asked.clear()
        assert fetch(publisher, tmp_path, None)
    assert [each.status for each in publisher.asked] == [200]
    assert [each.range is not None for each in publisher.asked] == [tags]
    assert (tmp_path / "clips.zip").read_bytes() == CONTENT


def test_a_shorter_version_is_fetched_whole(tmp_path: Path) -> None:
    """What is here reaches behind its end: the server has no such range."""
    short = CONTENT[:50_000]
    checksum = f"md5:{hashlib.md5(short).hexdigest()}"
    with publishing({PATH: OTHER}, tags=False) as publisher:
        publisher.faults[PATH] = [Fault(after=200_000), Fault(after=0)]
        with pytest.raises(DownloadError):
            fetch(publisher, tmp_path)
        publisher.files[PATH] = short
        fetcher = Fetcher(tmp_path, timeout=5, retries=0)
        file = File("clips.zip", publisher.address + PATH, checksum)
        assert fetcher.fetch(file, tmp_path / "clips.zip", lambda *_: None)
    assert [each.status for each in publisher.asked[-2:]] == [416, 200]
    assert (tmp_path / "clips.zip").read_bytes() == short


def test_a_server_without_ranges_sends_the_whole_again(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}, ranges=False) as publisher:
        publisher.faults[PATH] = [Fault(after=200_000), Fault(after=0)]
        with pytest.raises(DownloadError):
            fetch(publisher, tmp_path)
        publisher.asked.clear()
        assert fetch(publisher, tmp_path)
    assert [(each.status, each.sent) for each in publisher.asked] == [(200, len(CONTENT))]
    assert (tmp_path / "clips.zip").read_bytes() == CONTENT


def test_killed_after_the_last_byte_nothing_is_asked(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        publisher.faults[PATH] = [Fault(after=200_000), Fault(after=0)]
        with pytest.raises(DownloadError):
            fetch(publisher, tmp_path)
        (tmp_path / "clips.zip.partial").write_bytes(CONTENT)
        publisher.asked.clear()
        assert fetch(publisher, tmp_path)
        assert publisher.asked == []
    assert (tmp_path / "clips.zip").read_bytes() == CONTENT


def test_another_address_starts_over(tmp_path: Path) -> None:
    """The halves of two publishers are never joined."""
    with publishing({PATH: OTHER}) as one, publishing({PATH: CONTENT}) as publisher:
        one.faults[PATH] = [Fault(after=200_000), Fault(after=0)]
        with pytest.raises(DownloadError):
            fetch(one, tmp_path)
        assert fetch(publisher, tmp_path)
    assert [each.range for each in publisher.asked] == [None]


def test_a_wrong_file_is_set_aside(tmp_path: Path) -> None:
    with publishing({PATH: OTHER}) as publisher:
        found = hashlib.md5(OTHER).hexdigest()
        with pytest.raises(DownloadError, match=rf"expected {MD5}, found md5:{found} .*aside as"):
            fetch(publisher, tmp_path, retries=3)
        assert len(publisher.asked) == 1, "a wrong file is not fetched again and again"
        assert left(tmp_path) == ["clips.zip.partial.json", "clips.zip.wrong"]
        publisher.files[PATH] = CONTENT
        assert fetch(publisher, tmp_path)
    assert left(tmp_path) == ["clips.zip", "clips.zip.wrong"]
    assert (tmp_path / "clips.zip.wrong").read_bytes() == OTHER


def test_the_first_checksum_holds_where_none_is_stated(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        fetch(publisher, tmp_path, None)
        record = tmp_path / "clips.zip.sha256"
        assert record.read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  clips.zip\n"
        (tmp_path / "clips.zip").unlink()
        publisher.files[PATH] = OTHER
        with pytest.raises(DownloadError, match=r"differs from the first.*clips\.zip\.sha256"):
            fetch(publisher, tmp_path, None)
        assert not (tmp_path / "clips.zip").exists()
        record.unlink()
        fetch(publisher, tmp_path, None)
    assert (tmp_path / "clips.zip").read_bytes() == OTHER


def test_another_file_in_the_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "clips.zip").write_bytes(b"mine")
    with publishing({PATH: CONTENT}) as publisher:
        with pytest.raises(DownloadError, match=rf"is there, but is not .*expected {MD5}.*move it"):
            fetch(publisher, tmp_path)
        assert publisher.asked == []
    assert (tmp_path / "clips.zip").read_bytes() == b"mine"


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_final(tmp_path: Path, status: int) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        publisher.faults[PATH] = [Fault(status=status)]
        with pytest.raises(DownloadError, match=rf"clips\.zip: the server refuses, {status}"):
            fetch(publisher, tmp_path, retries=3)
        assert len(publisher.asked) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [500, 429])
def test_trouble_of_the_server_passes(tmp_path: Path, status: int) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        publisher.faults[PATH] = [Fault(status=status)]
        assert fetch(publisher, tmp_path, retries=1)
    assert [each.status for each in publisher.asked] == [status, 200]


def test_trouble_in_between_keeps_what_is_here(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        publisher.faults[PATH] = [Fault(after=200_000), Fault(status=503)]
        with pytest.raises(DownloadError, match="answers 503"):
            fetch(publisher, tmp_path)
        assert fetch(publisher, tmp_path)
    assert [each.status for each in publisher.asked] == [200, 503, 206]
    assert (tmp_path / "clips.zip").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_left(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        publisher.faults[PATH] = [
            Fault(after=150_000, stalls=True),
            Fault(after=0, stalls=True),
        ]
        with pytest.raises(DownloadError, match="the server has stopped sending"):
            fetch(publisher, tmp_path, timeout=0.2)
        assert fetch(publisher, tmp_path)
    assert publisher.asked[-1].status == 206


def test_a_dead_server_is_named(tmp_path: Path) -> None:
    with publishing({}) as publisher:
        pass
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1.*does not answer; 0 bytes are here"):
        fetch(publisher, tmp_path)


def test_a_page_instead_of_the_file_is_refused(tmp_path: Path) -> None:
    """As Google Drive sends one when a file was fetched too often."""
    with (
        publishing({PATH: b"<html>quota</html>"}, kind="text/html; charset=utf-8") as publisher,
        pytest.raises(DownloadError, match="a page for people instead"),
    ):
        fetch(publisher, tmp_path, None)
    assert left(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's disk that is always full")
def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    with publishing({PATH: CONTENT}) as publisher:
        (tmp_path / "clips.zip.partial").symlink_to("/dev/full")
        with pytest.raises(DownloadError, match=r"the disk is full after .*the same command goes"):
            fetch(publisher, tmp_path)
    assert not (tmp_path / "clips.zip").exists()
