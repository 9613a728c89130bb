"""Whole data sets from a loopback publisher, into the layouts that are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from equimodal.data.download import DownloadError, Published, download, find
from equimodal.data.download.published import File
from equimodal.data.download.publishers import SETS, crema_d
from equimodal.data.layouts.av_mnist import AVMNIST
from equimodal.data.layouts.ave import AVE
from equimodal.data.layouts.crema_d import CremaD
from equimodal.data.layouts.grid import GRID
from equimodal.errors import SetupError
from support import offered
from support.publisher import Fault, Publisher, publishing

INDEX = crema_d().index
assert INDEX is not None


def published(name: str, publisher: Publisher, *talkers: str) -> Published:
    """What is offered under a name, at the loopback, with the checksums of the small copies."""
    found = find(name, talkers or None)
    assert isinstance(found, Published)
    found = found.mirrored(publisher.address)
    files = tuple(
        replace(file, checksum=_md5(publisher.files[f"/{file.name}"]), size=1000)
        for file in found.files
    )
    return replace(found, files=files)


def _md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def visible(folder: Path) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "downloads" not in path.parts
    }


def get(name: str, publisher: Publisher, folder: Path, *talkers: str) -> list[tuple[float, float]]:
    shown: list[tuple[float, float]] = []
    download(
        published(name, publisher, *talkers),
        folder,
        timeout=5,
        retries=0,
        show=lambda done, total, text: shown.append((done, total)),
    )
    assert all(0 <= done <= total for done, total in shown)
    assert shown[-1][0] == shown[-1][1]
    return shown


def test_grid_is_what_its_layout_reads(tmp_path: Path) -> None:
    with publishing(offered.grid()) as publisher:
        get("grid", publisher, tmp_path, "s11", "s12")
    assert [each for each in visible(tmp_path) if each.endswith(".mpg")] == [
        f"{talker}/{sentence}.mpg"
        for talker, sentences in offered.SENTENCES.items()
        for sentence in sorted(sentences.split())
    ]
    listing = GRID(tmp_path, slots=("command",)).listing()
    assert len(listing.clips) == 8
    assert listing.failures == ()


def test_times_go_to_the_talker_who_has_said_the_sentences(tmp_path: Path) -> None:
    """On Zenodo folders of alignments bear the names of others."""
    with publishing(offered.grid()) as publisher:
        get("grid", publisher, tmp_path, "s11", "s12")
    for talker, sentences in offered.SENTENCES.items():
        for sentence in sentences.split():
            times = tmp_path / "align" / talker / f"{sentence}.align"
            assert times.read_text().split()[1] == str(250 * int(talker[1:]))


def test_a_talker_more_leaves_the_others_alone(tmp_path: Path) -> None:
    with publishing(offered.grid()) as publisher:
        get("grid", publisher, tmp_path, "s11")
        before = visible(tmp_path)
        publisher.asked.clear()
        get("grid", publisher, tmp_path, "s11", "s12")
    assert [each.path for each in publisher.asked] == ["/s12.zip"]
    assert before.items() < visible(tmp_path).items()
    assert {each.split("/")[-2] for each in visible(tmp_path)} == {"s11", "s12"}


def test_times_of_nobody_are_refused(tmp_path: Path) -> None:
    files = offered.grid()
    files["/alignments.zip"] = offered.zipped({"alignments/s11/bbbb1a.align": b"0 1 sil\n"})
    with (
        publishing(files) as publisher,
        pytest.raises(DownloadError, match=r"s11: expected .* 90% of its 4 clips.* those of 0"),
    ):
        get("grid", publisher, tmp_path, "s11")


def test_crema_d_is_checked_by_its_pointers(tmp_path: Path) -> None:
    files = offered.crema_d(INDEX.name)
    with publishing(files) as publisher:
        get("crema-d", publisher, tmp_path)
        assert visible(tmp_path) == {
            path[1:]: data for path, data in files.items() if path.endswith((".wav", ".flv"))
        }
        assert len(CremaD(tmp_path).listing().clips) == 40
        publisher.asked.clear()
        get("crema-d", publisher, tmp_path)
        assert publisher.asked == []
        lost = tmp_path / "VideoFlash" / "1003_DFA_HAP_XX.flv"
        lost.unlink()
        get("crema-d", publisher, tmp_path)
        assert [each.path for each in publisher.asked] == [f"/VideoFlash/{lost.name}"]
        lost.unlink()
        publisher.files[f"/VideoFlash/{lost.name}"] = b"version https://git-lfs.github.com/spec/v1"
        with pytest.raises(DownloadError, match=r"HAP_XX\.flv: expected sha256:.*set aside"):
            get("crema-d", publisher, tmp_path)
        assert not lost.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive at all", "damaged or no archive.*set aside as"),
        (offered.tarred({"CREMA-D/AudioWAV/1.wav": b"RIFF"}), "expected a pointer of Git LFS"),
        (offered.tarred({"CREMA-D/README.md": b"moved"}), "expected files in AudioWAV"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with (
        publishing({f"/{INDEX.name}": content}) as publisher,
        pytest.raises(DownloadError, match=message),
    ):
        get("crema-d", publisher, tmp_path)


def test_ave_is_what_its_layout_reads(tmp_path: Path) -> None:
    with publishing(offered.ave()) as publisher:
        get("ave", publisher, tmp_path)
    splits = [clip.split for clip in AVE(tmp_path).listing().clips]
    assert sorted(splits) == ["test", "train", "train", "train", "train", "val"]


def test_av_mnist_is_the_written_and_the_spoken_digits(tmp_path: Path) -> None:
    with publishing(offered.digits()) as publisher:
        get("mnist", publisher, tmp_path / "one")
        get("fsdd", publisher, tmp_path / "one")
        get("av-mnist", publisher, tmp_path / "both")
    assert visible(tmp_path / "one") == visible(tmp_path / "both")
    assert len(AVMNIST(tmp_path / "both").listing().clips) == 40


def test_what_is_there_is_not_fetched_again_even_without_the_archives(tmp_path: Path) -> None:
    with publishing(offered.digits()) as publisher:
        get("av-mnist", publisher, tmp_path)
        for archive in (tmp_path / "downloads").glob("*.zip"):
            archive.unlink()
        publisher.asked.clear()
        get("av-mnist", publisher, tmp_path)
        assert publisher.asked == []
        next((tmp_path / "fsdd" / "recordings").iterdir()).unlink()
        get("av-mnist", publisher, tmp_path)
    assert [each.path for each in publisher.asked] == ["/free-spoken-digit-dataset-1.0.10.zip"]


def test_broken_off_between_files_it_goes_on(tmp_path: Path) -> None:
    with publishing(offered.grid(size=60_000)) as publisher:
        publisher.faults["/s12.zip"] = [Fault(after=100_000), Fault(after=0)]
        with pytest.raises(DownloadError, match=r"s12\.zip.*the same command goes on"):
            get("grid", publisher, tmp_path, "s11", "s12")
        assert (tmp_path / "s11").exists()
        assert not (tmp_path / "s12").exists()
        publisher.asked.clear()
        get("grid", publisher, tmp_path, "s11", "s12")
    assert [(each.path, each.status) for each in publisher.asked] == [
        ("/s12.zip", 206),
        ("/alignments.zip", 200),
    ]


def test_a_damaged_archive_without_a_checksum_is_fetched_anew(tmp_path: Path) -> None:
    """Its checksum of the first download must not stand in the way."""
    with publishing(offered.ave()) as publisher:
        plain = replace(
            published("ave", publisher),
            files=tuple(replace(f, checksum=None) for f in published("ave", publisher).files),
        )
        whole = publisher.files["/AVE_Dataset.zip"]
        publisher.files["/AVE_Dataset.zip"] = whole[:900]
        with pytest.raises(DownloadError, match=r"damaged.*set aside.*fetches it anew.*drive\.goo"):
            download(plain, tmp_path, retries=0)
        assert visible(tmp_path) == {}
        publisher.files["/AVE_Dataset.zip"] = whole
        summary = download(plain, tmp_path, retries=0)
    assert summary.unchecked == ("AVE_Dataset.zip",)
    assert len(AVE(tmp_path).listing().clips) == 6


def test_the_record_of_the_publisher_states_checksums(tmp_path: Path) -> None:
    """As Zenodo's: what it states goes before what is built in."""
    with publishing(offered.grid()) as publisher:
        states = [
            {"key": name[1:], "size": len(data), "checksum": _md5(data)}
            for name, data in publisher.files.items()
        ]
        publisher.files["/api"] = json.dumps({"files": states}).encode()
        wrong = published("grid", publisher, "s11")
        files = tuple(replace(file, checksum="md5:" + "0" * 32) for file in wrong.files)
        wrong = replace(wrong, files=files)
        with pytest.raises(DownloadError, match="expected md5:0000"):
            download(wrong, tmp_path / "without", retries=0)
        listed = replace(wrong, checksums=f"{publisher.address}/api")
        assert download(listed, tmp_path / "with", retries=0).unchecked == ()


@pytest.mark.parametrize("answer", [None, b"<html>", b"{}", b'{"files": [{"key": 1}]}'])
def test_without_the_record_the_first_download_counts(tmp_path: Path, answer: bytes | None) -> None:
    with publishing(offered.grid()) as publisher:
        if answer is not None:
            publisher.files["/api"] = answer
        found = published("grid", publisher, "s11")
        files = tuple(replace(file, checksum=None) for file in found.files)
        found = replace(found, files=files, checksums=f"{publisher.address}/api")
        summary = download(found, tmp_path, retries=0)
    assert summary.unchecked == ("s11.zip", "alignments.zip")


def test_room_is_counted_beforehand(tmp_path: Path) -> None:
    with publishing(offered.ave()) as publisher:
        found = published("ave", publisher)
        found = replace(found, files=tuple(replace(f, size=10**15) for f in found.files))
        with pytest.raises(SetupError, match=r"ave needs 2000000\.0 GB more, .* are free: make"):
            download(found, tmp_path)
        assert publisher.asked == []


def test_two_downloads_do_not_write_to_one_folder(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    with (
        publishing(offered.ave()) as publisher,
        filelock.FileLock(tmp_path / "downloads" / "lock"),
        pytest.raises(SetupError, match="another download is at work there"),
    ):
        download(published("ave", publisher), tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_facts_are_complete(name: str) -> None:
    found = find(name)
    assert found.name == name
    if not isinstance(found, Published):
        assert "https://" in found.where
        return
    assert found.licence
    assert found.citation
    assert found.page.startswith("http")
    assert found.size > 0
    files: list[File] = [*found.files, *([found.index] if found.index else [])]
    assert len({file.name for file in files}) == len(files)
    takes = [take.name for file in files for take in file.takes]
    assert len(set(takes)) == len(takes)
    for file in files:
        assert file.address.startswith("https://")
        digits = {"md5": 32, "sha256": 64}
        if file.checksum is not None:
            algorithm, _, digest = file.checksum.partition(":")
            assert len(bytes.fromhex(digest)) * 2 == digits[algorithm]
        assert (file.place is None) == bool(file.takes) or file is found.index
