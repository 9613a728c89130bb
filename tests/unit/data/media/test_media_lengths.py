"""A length is what was decoded: intact files of every kind pass, the same files cut do not."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from equimodal.data import media
from support.clips import number, overwrite, truncate, write_clip
from support.odd_clips import film, remuxed, tone

SAME = [".mp4", ".mov", ".mkv", ".flv", ".ts"]  # hold the same packets
PAUSES = [n / 25 for n in range(12)] + [3.0, 3.04, 3.08, 9.0] + [9.04 + n / 25 for n in range(23)]


def seen(path: Path, start: float = 0.0, end: float | None = None, fps: float = 1.0) -> list[int]:
    return [number(jpeg) for jpeg in media.frames(path, start, end, fps, 48, 90)]


def heard(path: Path, start: float = 0.0, end: float | None = None) -> float:
    return len(media.sound(path, start, end, 16_000)) / 16_000


def reason(path: Path, start: float = 0.0, end: float | None = None, *, video: bool) -> str:
    with pytest.raises(media.Undecodable) as caught:
        (seen if video else heard)(path, start, end)
    return caught.value.reason


@pytest.fixture(scope="module")
def pauses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of sound; pictures in bursts, with B-frames and pauses of 2.5 and 6 s."""
    path = tmp_path_factory.mktemp("pauses") / "pauses.mp4"
    return film(path, PAUSES, until=10.0, sound=[tone(440, 10)], b_frames=3)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of sound; pictures of the first three."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    return film(path, [n / 25 for n in range(75)], sound=[tone(440, 10)], b_frames=2)


@pytest.mark.parametrize("suffix", SAME)
def test_in_a_pause_the_last_picture_stands(tmp_path: Path, pauses: Path, suffix: str) -> None:
    path = remuxed(pauses, tmp_path / f"again{suffix}")
    assert seen(path, 0.0, 10.0)[:9] == [11, 11, 11, 14, 14, 14, 14, 14, 14]
    assert seen(path)[:9] == [11, 11, 11, 14, 14, 14, 14, 14, 14]
    assert len(seen(path)) == 10
    assert seen(path, 4.0, 8.0) == [14] * 4, "all of the clip in a pause"
    assert seen(path, 1.0, 3.0) == [11, 11]
    assert heard(path, 0.0, 10.0) == 10.0


@pytest.mark.parametrize("suffix", SAME)
def test_pictures_may_be_shorter_than_the_sound(tmp_path: Path, short: Path, suffix: str) -> None:
    path = remuxed(short, tmp_path / f"again{suffix}")
    assert len(seen(path)) == 3
    assert abs(heard(path) - 10) < 0.07
    assert reason(path, 0.0, 10.0, video=True).startswith(("truncated: 3.0", "truncated: 2.9"))
    assert reason(path, 4.0, 8.0, video=True).startswith("starts after its end: start 4.00 s")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".ts"])
def test_sound_may_be_shorter_than_the_pictures(tmp_path: Path, suffix: str) -> None:
    whole = film(tmp_path / "quiet.mp4", [n / 25 for n in range(150)], sound=[tone(300, 2)])
    path = remuxed(whole, tmp_path / f"again{suffix}")
    assert abs(heard(path) - 2) < 0.07
    assert len(seen(path)) == 6
    assert reason(path, 0.0, 6.0, video=False).startswith("truncated: 2.0")


@pytest.mark.parametrize("share", [0.5, 0.85])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".flv"])
def test_the_same_files_cut_in_the_middle_are_found(
    tmp_path: Path, pauses: Path, short: Path, suffix: str, share: float
) -> None:
    for source in (pauses, short):
        path = truncate(remuxed(source, tmp_path / f"{source.stem}{suffix}"), share)
        assert reason(path, video=False).startswith("truncated: ")
        assert reason(path, 0.0, 10.0, video=False).startswith("truncated: ")


def test_without_tags_a_cut_file_is_known_by_all_of_its_streams(
    tmp_path: Path, short: Path
) -> None:
    """Other programs than FFmpeg and mkvmerge write no tag of how long each stream is."""
    path = remuxed(short, tmp_path / "again.mkv")
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATI0N"))
    assert len(seen(path)) == 3
    truncate(path, 0.5)
    assert reason(path, video=False).startswith("truncated: ")
    assert reason(path, video=True).startswith("truncated: "), "nothing says that it was so short"


def test_tags_of_another_file_do_not_count(tmp_path: Path, short: Path) -> None:
    path = remuxed(short, tmp_path / "again.mkv")
    path.write_bytes(path.read_bytes().replace(b"00:00:1", b"00:00:4"))
    assert abs(heard(path) - 10) < 0.07


@pytest.mark.parametrize("lost", [(0.3, 0.6), (0.5, 0.95)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".ts"])
def test_what_damage_took_is_no_pause(
    tmp_path: Path, suffix: str, lost: tuple[float, float]
) -> None:
    noise = np.random.default_rng(0)

    def grainy(index: int, width: int, height: int) -> np.ndarray:
        return noise.integers(0, 255, (height, width, 3), np.uint8)

    whole = film(
        tmp_path / "whole.mp4", [n / 25 for n in range(200)], sound=[tone(440, 8)], paint=grainy
    )
    path = remuxed(whole, tmp_path / f"again{suffix}")
    assert len(media.frames(path, 0, 8, 1, 48, 90)) == 8
    overwrite(path, *lost, byte=0)
    assert reason(path, 0.0, 7.5, video=True).startswith("truncated: ")
    assert reason(path, 0.0, 7.5, video=False).startswith("truncated: ")


def test_one_picture_and_long_sound(tmp_path: Path) -> None:
    whole = film(tmp_path / "still.mp4", [0.0], until=10.0, sound=[tone(440, 10)])
    assert seen(whole) == [0] * 10
    for suffix in (".mkv", ".mov"):
        path = remuxed(whole, tmp_path / f"again{suffix}")
        assert set(seen(path)) == {0}
        assert abs(heard(path) - 10) < 0.07


def test_an_hour_of_one_picture_is_believed_and_a_clock_gone_astray_is_not(tmp_path: Path) -> None:
    lecture = film(tmp_path / "lecture.mp4", [0.0, 0.04, 3600.0], until=3600.04)
    assert seen(lecture, 0.0, 3600.0, 0.01) == [1] * 36
    with av.open(str(tmp_path / "astray.ts"), "w") as file:
        stream = file.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(20):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = index if index < 10 else index + 25 * 5000
            for packet in stream.encode(frame):
                file.mux(packet)
        file.mux(stream.encode(None))
    assert len(media.frames(tmp_path / "astray.ts", 0, 0.4, 25, 48, 90)) == 10


RATES = {"quiet first": (0.02, 0.9), "loud first": (0.9, 0.02)}


@pytest.mark.parametrize("order", RATES)
@pytest.mark.parametrize("kind", ["aac", "mp3", "mp3 with a count", "ac3", "mp2", "flac", "opus"])
def test_raw_streams_are_as_long_as_what_they_hold(tmp_path: Path, kind: str, order: str) -> None:
    """FFmpeg guesses from the bit rate of the first frames: 106 s of 6, for a quiet beginning."""
    codec, form, options = {
        "aac": ("aac", "adts", {}),
        "mp3": ("libmp3lame", "mp3", {"write_xing": "0"}),
        "mp3 with a count": ("libmp3lame", "mp3", {}),
        "ac3": ("ac3", "ac3", {}),
        "mp2": ("mp2", "mp2", {}),
        "flac": ("flac", "flac", {}),
        "opus": ("libopus", "ogg", {}),
    }[kind]
    draw = np.random.default_rng(0)
    rate = 48_000
    loud = np.repeat(RATES[order], 3 * rate)
    wave = (draw.uniform(-1, 1, 6 * rate) * loud * 32767).astype(np.int16)
    wave[: 3 * rate] //= 1 if order == "loud first" else 300
    path = tmp_path / f"raw.{form}"
    with av.open(str(path), "w", format=form, options=options) as file:
        track = file.add_stream(codec, rate=rate, layout="mono")
        if codec == "libmp3lame":
            track.codec_context.options = {"b": "0", "q": "4"}
        for first in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], layout="mono")
            frame.sample_rate, frame.pts = rate, first
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    assert abs(heard(path) - 6) < 0.07
    assert abs(heard(path, 0.0, 6.0) - 6) < 0.07
    assert reason(path, 0.0, 9.0, video=False).startswith(("truncated: 6.0", "truncated: 5.99"))
    truncate(path, 0.5)
    if kind in ("mp3 with a count", "flac"):
        assert reason(path, video=False).startswith("truncated: ")
    else:
        assert heard(path) < 5.9


def test_sound_that_pauses_is_silent_in_between(tmp_path: Path) -> None:
    """Two seconds, three of nothing, two again: by time stamps, as a recorder that was held."""
    for suffix in (".mkv", ".mp4"):
        path = tmp_path / f"held{suffix}"
        with av.open(str(path), "w") as file:
            track = file.add_stream("aac", rate=16_000, layout="mono")
            wave = (tone(440, 4, 16_000) * 32767).astype(np.int16)
            for first in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], layout="mono")
                frame.sample_rate = 16_000
                frame.pts = first + (48_000 if first >= 31_744 else 0)
                file.mux(track.encode(frame))
            file.mux(track.encode(None))
        assert abs(heard(path) - 7) < 0.07
        pause = media.sound(path, 2.5, 4.5, 16_000)
        assert len(pause) == 32_000
        assert not pause[2000:-2000].any()


def test_pictures_that_begin_late_are_preceded_by_the_first(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mp4", seconds=5, video_from=3.0)
    assert seen(path, 0.0, 5.0) == [0, 0, 0, 12, 37]
