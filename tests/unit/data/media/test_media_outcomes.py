"""Each kind of file from which no clip can be had, with the reason that is listed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from equimodal.data import media
from support.clips import overwrite, painted, truncate, write_clip


def refused(
    path: Path, *, start: float = 0.0, end: float | None = None, video: bool = False
) -> str:
    with pytest.raises(media.Undecodable) as caught:
        heard_or_seen(path, start=start, end=end, video=video)
    return caught.value.reason


def heard_or_seen(
    path: Path, *, start: float = 0.0, end: float | None = None, video: bool = False
) -> int:
    if video:
        return len(media.frames(path, start, end, 5, 64, 90))
    return len(media.sound(path, start, end, 16_000))


BOTH = pytest.mark.parametrize("video", [False, True])


@BOTH
def test_no_such_file(tmp_path: Path, video: bool) -> None:
    assert refused(tmp_path / "none.mp4", video=video) == "no such file"
    assert refused(tmp_path, video=video) == "no such file"
    assert refused(tmp_path / ("x" * 5000), video=video) == "no such file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refused(tmp_path / "pipe.mp4") == "no such file"


def test_a_stream_that_holds_nothing_is_none(tmp_path: Path) -> None:
    """CREMA-D has such a file: a header of WAV, and no sound after it."""
    path = tmp_path / "1076_MTI_SAD_XX.wav"
    path.write_bytes(media.wav(np.zeros(0, np.int16), 16_000))
    assert refused(path) == "no sound"
    assert refused(path, end=1.0) == "no sound"


@BOTH
def test_matroska_whose_times_begin_late_is_whole(tmp_path: Path, video: bool) -> None:
    """It states when it ends, and not how long it is."""
    path = write_clip(tmp_path / "late.mkv", seconds=2, sound_from=10, video_from=10)
    assert heard_or_seen(path, video=video) == pytest.approx(10 if video else 32_000, rel=0.04)
    truncate(path, 0.5)
    assert refused(path, video=video).startswith("truncated: ")


@BOTH
def test_empty_file(tmp_path: Path, video: bool) -> None:
    (tmp_path / "empty.mp4").touch()
    assert refused(tmp_path / "empty.mp4", video=video) == "empty file"


@BOTH
@pytest.mark.parametrize("suffix", [".mp4", ".flv", ".mpg", ".wav"])
def test_unreadable(tmp_path: Path, suffix: str, video: bool) -> None:
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes())
    assert refused(path, video=video).startswith("unreadable: ")
    path.write_text("<html>404 not found</html>")
    assert refused(path, video=video).startswith("unreadable: ")


@BOTH
def test_a_video_without_its_index_is_unreadable(tmp_path: Path, video: bool) -> None:
    path = truncate(write_clip(tmp_path / "whole.mp4"), 0.5)
    assert refused(path, video=video).startswith("unreadable: Invalid data")


def test_no_sound_and_no_video(tmp_path: Path) -> None:
    assert refused(write_clip(tmp_path / "silent.mp4", sound=False)) == "no sound"
    assert refused(write_clip(tmp_path / "blind.mp4", video=False), video=True) == "no video"
    assert refused(write_clip(tmp_path / "blind.wav"), video=True) == "no video"


def test_the_cover_of_an_album_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "album.m4a"
    with av.open(str(path), "w", format="mp4") as file:
        sound = file.add_stream("aac", rate=16_000, layout="mono")
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(painted(0, 64, 48), format="rgb24")
        picture.pts, picture.time_base = 0, Fraction(1, 1)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), layout="mono")
        samples.sample_rate = 16_000
        for stream, frame in ((sound, samples), (cover, picture)):
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    with av.open(str(path)) as file:
        assert len(file.streams.video) == 1
    assert refused(path, video=True) == "no video"
    assert heard_or_seen(path) >= 16_000


STATED = [".mp4", ".mkv", ".flv", ".avi", ".wav", ".mp3", ".flac"]  # say how long they are


def whole(path: Path) -> Path:
    """Three seconds, with the index of an MP4 at its beginning."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else None
    return write_clip(path, seconds=3, rate=44_100, options=options)


@pytest.mark.parametrize(
    ("suffix", "video"),
    [(suffix, False) for suffix in [*STATED, ".mpg", ".ts"]]
    + [(suffix, True) for suffix in [".mp4", ".mkv", ".flv", ".avi", ".mpg", ".ts"]],
)
def test_truncated(tmp_path: Path, suffix: str, video: bool) -> None:
    path = whole(tmp_path / f"part{suffix}")
    heard_or_seen(path, video=video)
    heard_or_seen(path, end=3.0, video=video)
    heard_or_seen(path, end=3.25, video=video)
    # FFmpeg's encoder of MP2 keeps its last 481 samples to itself.
    assert refused(path, end=3.6, video=video).startswith(("truncated: 3.0", "truncated: 2.99"))
    truncate(path, 0.4)
    told = refused(path, end=3.0, video=video)
    assert told.startswith("truncated: ")
    assert told.endswith(" s of 3.00 s")
    assert 0.8 < float(told.split()[1]) < 2.5
    if suffix in STATED:
        assert refused(path, video=video).startswith("truncated: ")
    assert heard_or_seen(path, end=0.5, video=video), "what is there can be had"


@BOTH
def test_the_rule_of_what_may_be_missing(tmp_path: Path, video: bool) -> None:
    path = write_clip(tmp_path / "three.avi", seconds=3, rate=16_000)
    assert heard_or_seen(path, end=3.32, video=video), "a tenth"
    assert refused(path, end=3.35, video=video) == "truncated: 3.00 s of 3.35 s"
    assert heard_or_seen(path, start=2.8, end=3.08, video=video), "0.1 s"
    assert refused(path, start=2.8, end=3.12, video=video) == "truncated: 0.20 s of 0.32 s"


@BOTH
@pytest.mark.parametrize("suffix", [".mp4", ".mpg", ".flv", ".avi"])
def test_starts_after_its_end(tmp_path: Path, suffix: str, video: bool) -> None:
    path = write_clip(tmp_path / f"three{suffix}", seconds=3, rate=44_100)
    for end in (None, 6.0):
        told = refused(path, start=5.0, end=end, video=video)
        assert told.startswith("starts after its end: start 5.00 s, end "), told
        assert 2.98 < float(told.split()[-2]) < 3.05 or end is not None
    told = refused(path, start=2.0, end=1.0, video=video)
    assert told == "starts after its end: start 2.00 s, end 1.00 s"
    assert refused(path, start=-1.0, video=video) == "starts before 0: start -1.00 s"
    assert refused(path, start=float("nan"), video=video) == "starts before 0: start nan s"


@BOTH
def test_what_a_cut_file_should_hold_is_truncated_not_after_its_end(
    tmp_path: Path, video: bool
) -> None:
    path = truncate(whole(tmp_path / "part.mp4"), 0.4)
    assert refused(path, start=2.0, end=3.0, video=video) == "truncated: 0.00 s of 1.00 s"


@BOTH
def test_a_small_hole_is_passed_over_and_a_large_one_refused(tmp_path: Path, video: bool) -> None:
    path = whole(tmp_path / "hole.mp4")
    expected = heard_or_seen(path, end=3.0, video=video)
    overwrite(path, 0.50, 0.52)
    found = heard_or_seen(path, end=3.0, video=video)
    assert abs(found - expected) < 48_000 / 10
    overwrite(path, 0.3, 0.95, byte=0)
    assert refused(path, end=3.0, video=video).startswith("truncated: ")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".mpg", ".ts", ".avi", ".wav", ".mp3"])
def test_damage_never_raises_anything_else(tmp_path: Path, suffix: str) -> None:
    healthy = whole(tmp_path / f"healthy{suffix}").read_bytes()
    draw = np.random.default_rng(0)
    path = tmp_path / f"damaged{suffix}"
    outcomes = set()
    for trial in range(9):
        content = bytearray(healthy)
        reach = len(content) if trial % 2 else 600  # everywhere, or in the headers alone
        for _ in range(int(draw.integers(1, 100))):
            content[draw.integers(reach)] = draw.integers(256)
        path.write_bytes(content[: draw.integers(len(content))] if trial % 3 == 0 else content)
        for video in (False, True):
            for start, end in ((0.0, None), (2.2, 2.9)):
                try:
                    heard_or_seen(path, start=start, end=end, video=video)
                    outcomes.add("had")
                except media.Undecodable as error:
                    outcomes.add(error.reason.split(":")[0])
    assert len(outcomes) > 1


def test_libraries_come_late_and_what_ffmpeg_complains_about_is_not_printed(tmp_path: Path) -> None:
    path = overwrite(whole(tmp_path / "hole.mp4"), 0.4, 0.6)
    code = (
        "import sys, pathlib\n"
        "from equimodal.data import media\n"
        "assert not {'av', 'PIL'} & set(sys.modules), 'imported before they are needed'\n"
        "for read in (lambda path: media.sound(path, 0, 3, 16_000),\n"
        "             lambda path: media.frames(path, 0, 3, 5, 64, 90)):\n"
        "    for name in sys.argv[1:]:\n"
        "        try:\n"
        "            read(pathlib.Path(name))\n"
        "        except media.Undecodable as error:\n"
        "            assert error.reason\n"
    )
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 100)
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(path), str(tmp_path / "noise.mp4")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout, told.stderr) == ("", "")


@BOTH
@pytest.mark.parametrize(
    "name", ["Grüße 日本語 🎬.mp4", "a:b.mp4", "concat:x.mp4", "50%d.mp4", "a b'c\"d.mp4", "-i.mp4"]
)
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, video: bool) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mp4").rename(name)
    assert heard_or_seen(Path(name), video=video)
    assert heard_or_seen(tmp_path / name, video=video)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    write_clip(tmp_path / "plain.mp4").rename(path)
    assert heard_or_seen(path)


def test_tags_that_are_not_utf8(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "tagged.mp4", tags={"title": "cafXX"})
    path.write_bytes(path.read_bytes().replace(b"cafXX", b"caf\xe9!"))
    with pytest.raises(UnicodeDecodeError), av.open(str(path)):
        pass
    assert heard_or_seen(path)
    assert heard_or_seen(path, video=True)


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.ts")
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://localhost:9/a.ts\n")
    assert refused(path).startswith(("unreadable", "no sound"))


def test_the_refusal_goes_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(media.Undecodable("no sound")))
    assert isinstance(error, media.Undecodable)
    assert error.reason == str(error) == "no sound"


def test_pyav_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "av" else name)
    path = tmp_path / "clip.mp4"
    for read in (
        lambda: media.sound(path, 0, 1, 16_000),
        lambda: media.frames(path, 0, 1, 1, 64, 90),
    ):
        with pytest.raises(ImportError, match=r"needs av: pip install 'equimodal\[data\]'"):
            read()
