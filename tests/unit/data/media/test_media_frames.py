"""Which pictures come out of a video, how large and which way up."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from equimodal.data import media
from equimodal.data.media import track as tracks
from equimodal.data.media import upright
from support.clips import number, painted, reencode, size, write_clip

VIDEOS = [".mp4", ".mov", ".mkv", ".flv", ".mpg", ".ts", ".avi"]


def shown(times: list[float], start: float, end: float, fps: float) -> list[int]:
    """By hand: the last picture that begins at most 1 ms after the middle of each part."""
    count = max(1, round((end - start) * fps))
    found = []
    for part in range(count):
        moment = start + (part + 0.5) * (end - start) / count
        found.append(max([n for n, time in enumerate(times) if time <= moment + 1e-3], default=0))
    return found


def numbers(
    path: Path, start: float = 0.0, end: float | None = None, fps: float = 25.0
) -> list[int]:
    return [number(jpeg) for jpeg in media.frames(path, start, end, fps, 256, 90)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four seconds with sound, in each container."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        suffix: write_clip(folder / f"clip{suffix}", seconds=4, rate=44_100) for suffix in VIDEOS
    }


@pytest.mark.parametrize("suffix", VIDEOS)
@pytest.mark.parametrize(
    ("start", "end", "fps"),
    [
        (0, 4, 25),
        (0, 4, 1),
        (0, 1, 12.5),
        (0.31, 0.64, 25),
        (1.0, 1.01, 1),
        (2.5, 3.7, 3),
        (3, 4, 60),
    ],
)
def test_pictures_are_those_at_the_middles_of_equal_parts(
    clips: dict[str, Path], suffix: str, start: float, end: float, fps: float
) -> None:
    times = [n / 25 for n in range(100)]
    assert numbers(clips[suffix], start, end, fps) == shown(times, start, end, fps)


@pytest.mark.parametrize("suffix", VIDEOS)
def test_all_pictures_come_out_once_at_the_rate_of_the_video(
    clips: dict[str, Path], suffix: str
) -> None:
    assert numbers(clips[suffix]) == list(range(100))


@pytest.mark.parametrize("suffix", VIDEOS)
@pytest.mark.parametrize("start", [2.0, 2.62, 3.5])
def test_seeking_changes_nothing(
    clips: dict[str, Path], suffix: str, start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sought = media.frames(clips[suffix], start, start + 0.4, 25, 64, 90)
    monkeypatch.setattr(tracks, "SEEK_FROM", float("inf"))
    assert sought == media.frames(clips[suffix], start, start + 0.4, 25, 64, 90)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_rate_that_varies(tmp_path: Path, suffix: str) -> None:
    times = [0, 0.04, 0.5, 0.51, 0.9, 1.0, 1.32]
    path = write_clip(tmp_path / f"vfr{suffix}", times=times, sound=False)
    assert numbers(path, 0, 1.36, 25) == shown(times, 0, 1.36, 25)
    assert numbers(path, 0, 1.32, 3) == shown(times, 0, 1.32, 3)


def test_a_picture_may_say_that_it_lasts_long(tmp_path: Path) -> None:
    times = [0, 0.04, 0.08, 4.0, 4.04]
    path = write_clip(tmp_path / "still.mp4", times=times, sound=False)
    assert numbers(path, 0, 4, 1) == [2, 2, 2, 2]


def test_a_picture_lasts_until_the_next_and_begins_at_its_own_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "five.mp4", fps=5, sound=False)
    assert numbers(path, 0.0, 0.8, 2.5) == [1, 3]  # moments 0.2 and 0.6: ties
    assert numbers(path, 0.0, 0.79, 2.5) == [0, 2]  # 0.1975 and 0.5925: before the ties


def test_pictures_and_sound_count_from_the_same_moment(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mp4", seconds=4, video_from=0.2)
    assert numbers(path, 0, 4, 25)[:8] == [0, 0, 0, 0, 0, 0, 1, 2]


def test_moments_after_the_last_picture_show_the_last(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "short.mp4", seconds=1.92, sound=False)
    assert numbers(path, 0, 2, 25) == [*range(48), 47, 47]


def test_b_frames_come_in_the_order_of_presentation(tmp_path: Path) -> None:
    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 2
        stream.bit_rate = 2_000_000
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(painted(index, 64, 48), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open(str(path)) as file:
        assert {packet.dts == packet.pts for packet in file.demux() if packet.size} == {True, False}
    assert numbers(path) == list(range(50))


def test_the_same_bytes_on_each_run_and_after_reencoding_the_same_pictures(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    again = media.frames(clips[".mp4"], 0, 1, 5, 64, 90)
    assert again == media.frames(clips[".mp4"], 0, 1, 5, 64, 90)
    for suffix in (".avi", ".mov"):
        assert numbers(reencode(clips[".mpg"], tmp_path / f"again{suffix}"), 0, 4, 5) == shown(
            [n / 25 for n in range(100)], 0, 4, 5
        )


@pytest.mark.parametrize(
    ("stored", "side", "expected"),
    [
        ((360, 288), 256, (320, 256)),
        ((64, 48), 256, (64, 48)),
        ((48, 64), 32, (32, 43)),
        ((320, 180), 90, (160, 90)),
    ],
)
def test_the_shorter_side_is_reduced_and_never_enlarged(
    tmp_path: Path, stored: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    path = write_clip(tmp_path / "size.mp4", seconds=0.2, size=stored, sound=False)
    jpeg = media.frames(path, 0, None, 1, side, 90)[0]
    assert size(jpeg) == expected
    assert number(jpeg) == 2


@pytest.mark.parametrize(
    ("aspect", "expected"),
    [(Fraction(2), (64, 24)), (Fraction(1, 2), (32, 48)), (Fraction(1), (64, 48))],
)
def test_pixels_that_are_not_square_are_made_square(
    tmp_path: Path, aspect: Fraction, expected: tuple[int, int]
) -> None:
    path = write_clip(tmp_path / "wide.mp4", seconds=0.2, sound=False, pixel_aspect=aspect)
    assert size(media.frames(path, 0, None, 1, 256, 90)[0]) == expected


def corners(number: int, width: int, height: int) -> np.ndarray:
    """Red at the top left, green at the top right, blue at the bottom left, white at the fourth."""
    picture = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    picture[:h, :w, 0] = picture[:h, w:, 1] = picture[h:, :w, 2] = picture[h:, w:] = 255
    return picture


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_and_mirroring_are_carried_out(
    tmp_path: Path, degrees: int, flipped: bool
) -> None:
    path = tmp_path / "turned.mp4"
    write_clip(path, seconds=0.2, sound=False, rotation=degrees, flipped=flipped, paint=corners)
    jpeg = media.frames(path, 0, None, 1, 256, 95)[0]
    wanted = np.rot90(corners(0, 64, 48), degrees // 90)  # counterclockwise
    if flipped:
        wanted = wanted[:, ::-1]
    found = np.asarray(Image.open(io.BytesIO(jpeg)), np.int64)
    assert found.shape == wanted.shape
    inside = np.abs(found - wanted).max(axis=2) < 60
    assert inside.mean() > 0.85, "all but the seams, where chroma is subsampled"


def test_pictures_are_scaled_without_aliasing(tmp_path: Path) -> None:
    """Against exact resampling by Pillow, of stripes that nearest neighbours would alias."""

    def stripes(number: int, width: int, height: int) -> np.ndarray:
        grey = np.where(np.arange(width) % 4 < 2, 60, 200).astype(np.uint8)
        return np.broadcast_to(grey[None, :, None], (height, width, 3)).copy()

    frame = av.VideoFrame.from_ndarray(stripes(0, 720, 576), format="rgb24")
    jpeg = upright.jpeg(frame, (160, 128), 95)
    found = np.asarray(Image.open(io.BytesIO(jpeg)), np.float64)
    exact = Image.fromarray(stripes(0, 720, 576)).resize((160, 128), Image.Resampling.BICUBIC)
    assert np.abs(found - np.asarray(exact, np.float64)).mean() < 3
    assert found[:, 8:-8].std() < 10, "the stripes are finer than the pixels: grey"


def test_colours_are_those_of_the_stated_colour_space() -> None:
    """A red in BT.709, as HD video has it, would come out orange if read as BT.601."""
    y, u, v = 63, 102, 240  # pure red in BT.709, limited range
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value in zip(frame.planes, (y, u, v), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace = 1
    jpeg = upright.jpeg(frame, (64, 48), 95)
    red, green, blue = np.asarray(Image.open(io.BytesIO(jpeg)))[24, 32].tolist()
    assert red > 245
    assert green < 8
    assert blue < 8


def test_pictures_of_another_size_in_mid_stream_get_the_size_of_the_first(tmp_path: Path) -> None:
    parts = [
        write_clip(tmp_path / f"{width}.ts", seconds=1, size=(width, 48), sound=False, gop=5)
        for width in (64, 96)
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    jpegs = media.frames(joined, 0, 2, 5, 256, 90)
    assert {size(jpeg) for jpeg in jpegs} == {(64, 48)}
    assert [number(jpeg) for jpeg in jpegs[:5]] == [2, 7, 12, 17, 22]
    assert 20 <= number(jpegs[-1]) <= 24, "a clock that starts again goes on from where it was"


def test_a_long_clip_is_not_held_in_memory(tmp_path: Path) -> None:
    """In a process of its own, whose peak no other test has raised."""
    path = tmp_path / "long.mp4"
    write_clip(path, seconds=60, fps=4, size=(320, 240), sound=False, gop=100)
    code = (
        "import resource, sys, pathlib\n"
        "from equimodal.data import media\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "media.frames(path, 0, 2, 1, 64, 90)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(len(media.frames(path, 0, None, 1, 64, 90)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    count, grown = map(int, told.stdout.split())
    assert count == 60
    whole = 240 * 320 * 240 * 3 // 2 / 1024
    assert grown < whole / 3, "KB; all frames would take 27,000"
    assert numbers(path, fps=1) == [4 * n + 2 for n in range(60)]
