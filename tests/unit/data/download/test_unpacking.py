"""Archives: whole and in place, or nothing; and never outside of the folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from equimodal.data.download.failure import DamagedError, DownloadError
from equimodal.data.download.published import Take
from equimodal.data.download.unpacking import unpack, unpacked

CONTENT = {"s1/a.mpg": b"a" * 5_000, "s1/b.mpg": bytes(range(256)) * 20, "s1/notes.txt": b"no"}


def wanted(names: Sequence[str], root: Path) -> Mapping[str, str]:
    return {name: name for name in names if name.endswith(".mpg")}


TAKE = Take("s1", wanted)


def zipped(path: Path, content: Mapping[str, bytes] = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, content: Mapping[str, bytes] = CONTENT, link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link is not None:
            member = tarfile.TarInfo("s1/link.mpg")
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "downloads"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("make", [zipped, tarred], ids=["zip", "tar"])
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_what_is_wanted_is_in_its_place(work: Path, make: object, suffix: str) -> None:
    """By its content, not by its name, it is seen what kind of archive it is."""
    archive = make(work / f"s1{suffix}")  # type: ignore[operator]
    record = work / "s1.unpacked"
    assert not unpacked(record, work.parent)
    assert unpack(archive, work.parent, TAKE, record) == 2
    assert unpacked(record, work.parent)
    there = files(work.parent / "s1")
    assert there == {"a.mpg": CONTENT["s1/a.mpg"], "b.mpg": CONTENT["s1/b.mpg"]}
    assert sorted(path.name for path in work.iterdir()) == sorted([archive.name, record.name])


def test_a_lost_or_cut_file_is_noticed_and_put_back(work: Path) -> None:
    archive, record = zipped(work / "s1.zip"), work / "s1.unpacked"
    unpack(archive, work.parent, TAKE, record)
    lost = work.parent / "s1" / "b.mpg"
    lost.write_bytes(b"short")
    assert not unpacked(record, work.parent)
    with pytest.raises(DownloadError, match=r"b\.mpg is there, but is not that of s1\.zip: move"):
        unpack(archive, work.parent, TAKE, record)
    assert lost.read_bytes() == b"short", "what may be the user's is never written over"
    lost.unlink()
    unpack(archive, work.parent, TAKE, record)
    assert lost.read_bytes() == CONTENT["s1/b.mpg"]


def test_other_files_of_the_folder_stay(work: Path) -> None:
    (work.parent / "s1").mkdir()
    (work.parent / "s1" / "mine.txt").write_text("mine")
    unpack(zipped(work / "s1.zip"), work.parent, TAKE, work / "s1.unpacked")
    assert sorted(files(work.parent / "s1")) == ["a.mpg", "b.mpg", "mine.txt"]


@pytest.mark.parametrize("make", [zipped, tarred], ids=["zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../evil.mpg", "s1/../../evil.mpg", "/evil.mpg", "..\\evil.mpg", "C:\\evil.mpg"]
)
def test_no_path_leaves_the_folder(work: Path, make: object, name: str) -> None:
    archive = make(work / "s1.zip", {**CONTENT, name: b"evil"})  # type: ignore[operator]
    before = files(work.parent.parent)
    with pytest.raises(DownloadError, match="leads out of the folder: nothing was unpacked"):
        unpack(archive, work.parent, TAKE, work / "s1.unpacked")
    assert files(work.parent.parent) == before


def test_an_archive_with_such_a_path_is_not_trusted_at_all(work: Path) -> None:
    """Even if that file is not wanted, or would be put elsewhere."""
    archive = zipped(work / "s1.zip", {**CONTENT, "../../home/.profile": b"evil"})
    with pytest.raises(DownloadError, match="leads out of the folder"):
        unpack(archive, work.parent, TAKE, work / "s1.unpacked")
    assert not (work.parent / "s1").exists()


def test_links_are_not_made(work: Path) -> None:
    archive = tarred(work / "s1.tar", link="/etc/passwd")
    unpack(archive, work.parent, TAKE, work / "s1.unpacked")
    assert sorted(files(work.parent / "s1")) == ["a.mpg", "b.mpg"]


@pytest.mark.parametrize("make", [zipped, tarred], ids=["zip", "tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_archive_leaves_nothing(work: Path, make: object, share: float) -> None:
    archive = make(work / "s1.tar.gz")  # type: ignore[operator]
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DamagedError, match="is damaged or no archive"):
        unpack(archive, work.parent, TAKE, work / "s1.unpacked")
    assert sorted(path.name for path in work.parent.iterdir()) == ["downloads"]
    assert sorted(path.name for path in work.iterdir()) == [archive.name]


def test_a_flipped_bit_is_seen(work: Path) -> None:
    archive = work / "s1.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as stored:
        for name, data in CONTENT.items():
            stored.writestr(name, data)
    data = bytearray(archive.read_bytes())
    data[1_000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DamagedError, match="CRC"):
        unpack(archive, work.parent, TAKE, work / "s1.unpacked")
    assert not (work.parent / "s1").exists()


def test_an_archive_of_something_else_is_refused(work: Path) -> None:
    archive = zipped(work / "s1.zip", {"readme.txt": b"moved"})
    with pytest.raises(DownloadError, match=r"nothing in it looks like s1: found readme\.txt"):
        unpack(archive, work.parent, TAKE, work / "s1.unpacked")


def test_killed_before_the_record_it_is_done_again(work: Path) -> None:
    archive, record = zipped(work / "s1.zip"), work / "s1.unpacked"
    unpack(archive, work.parent, TAKE, record)
    record.unlink()
    half = work / ".s1.partial" / "s1"
    half.mkdir(parents=True)
    (half / "old.mpg").write_bytes(b"half")
    unpack(archive, work.parent, TAKE, record)
    assert sorted(files(work.parent / "s1")) == ["a.mpg", "b.mpg"]
    assert not (work / ".s1.partial").exists()


def test_no_room_is_said_before_anything_is_written(work: Path) -> None:
    archive = work / "s1.zip"
    with zipfile.ZipFile(archive, "w") as huge:
        huge.writestr("s1/a.mpg", b"a")
        huge.filelist[0].file_size = 10**15  # as the directory of the archive will say
    with pytest.raises(DownloadError, match=r"unpacked it takes 1000000\.0 GB, .* are free: make"):
        unpack(archive, work.parent, TAKE, work / "s1.unpacked")
    assert not (work.parent / "s1").exists()


def test_two_files_for_one_place_are_refused(work: Path) -> None:
    def flat(names: Sequence[str], root: Path) -> Mapping[str, str]:
        return {name: f"AVE/{Path(name).name}" for name in names}

    archive = zipped(work / "s1.zip", {"a/x.mp4": b"1", "b/x.mp4": b"2"})
    with pytest.raises(DownloadError, match="expected each file once"):
        unpack(archive, work.parent, Take("ave", flat), work / "ave.unpacked")
