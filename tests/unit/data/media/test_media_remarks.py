"""Cameras, several tracks, and sound or pictures that are odd: taken, and said."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from equimodal.data import media
from support.clips import number, size, write_clip
from support.odd_clips import camera, film, photographed, tone


def of_sound(path: Path, start: float = 0.0, end: float | None = None) -> list[str]:
    remarks: list[str] = []
    media.sound(path, start, end, 16_000, remarks)
    return remarks


def of_pictures(path: Path) -> list[str]:
    remarks: list[str] = []
    media.frames(path, 0, None, 2, 48, 90, remarks)
    return remarks


@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".avi", ".mov", ".mkv"])
def test_frames_of_a_camera_are_turned_upright(
    tmp_path: Path, suffix: str, orientation: int | None
) -> None:
    """EXIF is side data for which PyAV 18.1 has no name."""
    lying = (48, 64) if orientation in (6, 8) else (64, 48)
    pictures = [photographed(n, orientation) for n in range(8)]
    path = camera(tmp_path / f"clip{suffix}", pictures, lying)
    jpegs = media.frames(path, 0, None, 8, 48, 90)
    assert [number(jpeg) for jpeg in jpegs] == list(range(8))
    assert {size(jpeg) for jpeg in jpegs} == {(64, 48)}


@pytest.mark.parametrize("orientation", [None, 3, 6])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_single_pictures_of_a_camera(tmp_path: Path, form: str, orientation: int | None) -> None:
    path = tmp_path / f"picture.{form.lower()}"
    path.write_bytes(photographed(5, orientation, form=form))
    (jpeg,) = media.frames(path, 0, None, 1, 48, 90)
    assert number(jpeg) == 5
    assert size(jpeg) == (64, 48)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("default", [0, 1])
def test_the_default_track_of_sound_is_taken(tmp_path: Path, default: int, suffix: str) -> None:
    path = film(
        tmp_path / f"dubbed{suffix}",
        [n / 25 for n in range(50)],
        sound=[np.zeros(88_200), tone(440, 2)],
        default=default,
    )
    with av.open(str(path)) as file:
        assert file.streams.best("audio").index == 1 + default
    pcm = media.sound(path, 0, None, 16_000)
    assert bool(np.abs(pcm).max() > 10_000) == (default == 1)
    assert of_sound(path) == ["sound: the default of 2 streams", *["silent"] * (default == 0)]
    assert of_pictures(path) == []


def test_the_default_track_of_pictures_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "preview.mkv"
    with av.open(str(path), "w") as file:
        streams = []
        for width, default in ((32, False), (64, True)):
            stream = file.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
            stream.disposition = av.stream.Disposition.default if default else 0
            streams.append(stream)
        for index in range(25):
            for stream in streams:
                frame = av.VideoFrame(stream.width, 48, "yuv420p")
                frame.pts = index
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    assert size(media.frames(path, 0, None, 1, 48, 90)[0]) == (64, 48)
    assert "video: the default of 2 streams" in of_pictures(path)


@pytest.mark.parametrize(
    ("wave", "expected"),
    [
        (np.zeros(16_000), ["silent"]),
        (np.full(16_000, 0.25), ["constant"]),
        (np.full(16_000, -0.9999), ["constant"]),
        (np.clip(tone(300, 1, 16_000, 2.0), -1, 1), ["clipped"]),
        (tone(300, 1, 16_000, 0.5), []),
        (tone(300, 1, 16_000, 0.002), []),
    ],
)
def test_silent_constant_and_clipped_sound(
    tmp_path: Path, wave: np.ndarray, expected: list[str]
) -> None:
    path = write_clip(tmp_path / "odd.wav", wave=wave)
    assert [remark.split(":")[0] for remark in of_sound(path)] == expected


def test_black_pictures_and_pictures_of_one_colour(tmp_path: Path) -> None:
    def flat(*colour: int) -> Path:
        path = tmp_path / f"{'-'.join(map(str, colour))}.mp4"
        fill = np.full((48, 64, 3), colour, np.uint8)
        return write_clip(path, sound=False, paint=lambda number, width, height: fill)

    assert of_pictures(flat(0, 0, 0)) == ["black"]
    assert of_pictures(flat(200, 40, 40)) == ["one colour"]
    assert of_pictures(write_clip(tmp_path / "seen.mp4", sound=False)) == []


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_channels_in_opposite_phase(tmp_path: Path, suffix: str) -> None:
    wave = tone(440, 1, 44_100)
    remarks = {}
    for name, other in (("opposite", -wave), ("alike", wave), ("one", np.zeros(44_100))):
        path = tmp_path / f"{name}{suffix}"
        write_clip(path, rate=44_100, channels=2, wave=np.stack([wave, other]))
        remarks[name] = of_sound(path)
    assert remarks["opposite"][0].startswith("channels cancel: ")
    assert remarks["alike"] == remarks["one"] == []


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
def test_floats_in_the_scale_of_integers(tmp_path: Path, bits: int, codec: str) -> None:
    """Written by those who read integers and never divided: all of it would be at full scale."""
    form, kind = {"pcm_f32le": ("flt", np.float32), "pcm_f64le": ("dbl", np.float64)}[codec]
    path = tmp_path / "scale.wav"
    with av.open(str(path), "w") as file:
        track = file.add_stream(codec, rate=16_000, layout="mono")
        wave = (tone(440, 3, 16_000) * 2 ** (bits - 1)).astype(kind)
        for first in range(0, len(wave), 4000):
            part = np.ascontiguousarray(wave[None, first : first + 4000])
            frame = av.AudioFrame.from_ndarray(part, format=form, layout="mono")
            frame.sample_rate, frame.pts = 16_000, first
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    found = media.sound(path, 0, None, 16_000)
    np.testing.assert_allclose(found, tone(440, 3, 16_000) * 32_768, atol=1)
    (remark,) = of_sound(path, 1.0, 2.0)
    assert remark.startswith("integer scale: samples of up to ")
