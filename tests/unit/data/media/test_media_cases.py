"""Files from a survey of public bug reports, where they are at hand: each has its right outcome."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equimodal.data import media

CASES = Path(__file__).parents[5] / "shared" / "cases" / "media"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no cases at ../shared/cases/media")

# Seconds of sound, and of pictures; None where there is no such stream.
LENGTHS = {
    "base.mp4": (6.0, 6.0),
    "shortsound.mp4": (2.0, 6.0),
    "still1.mp4": (10.0, 1.0),
    "vfr.mp4": (10.0, 10.0),
    "vfr.flv": (10.0, 10.0),
    "vfr.webm": (10.0, 10.0),
    "vfr_end.webm": (10.0, 3.127),
    "twoaudio.mkv": (6.0, 6.0),
    "twovideo.mkv": (6.0, 6.0),
    "antiphase.wav": (6.0, None),
    "floatscale.wav": (6.0, None),
    "x/exif_mjpeg.avi": (2.0, 2.0),
    "x/exif_mjpeg.mov": (2.0, 2.0),
    "x/loudfirst.aac": (6.0, None),
    "x/quietfirst.aac": (6.0, None),
    "x/quietfirst.ac3": (6.0, None),
    "x/quietfirst.flac": (6.0, None),
    "x/quietfirst_noxing.mp3": (6.0, None),
    "x/quietfirst_xing.mp3": (6.0, None),
    "x/shortsound.mkv": (2.0, 6.0),
    "x/still1b.mkv": (10.0, 1.0),
    "x/v8a10.mkv": (10.0, 8.0),
    "x/v8a10.mp4": (10.0, 8.0),
    "x/vfr_2s.mp4": (10.0, 10.0),
    "x/vfr_2s.webm": (10.0, 10.0),
    "x/vfr_nob.mp4": (10.0, 10.0),
    "x/exif.jpg": (None, 0.04),
    "x/exif.png": (None, 0.04),
    "x/exif.webp": (None, 0.04),
    "x/exif_upright.jpg": (None, 0.04),
    "x/p.tiff": (None, 0.04),
}


def test_every_file_has_an_outcome_here() -> None:
    files = {p.relative_to(CASES).as_posix() for p in CASES.rglob("*") if p.is_file()}
    assert {name for name in files if not name.endswith(".py")} == set(LENGTHS)


@pytest.mark.parametrize("name", LENGTHS)
def test_intact_files_come_out_whole(name: str) -> None:
    sound, pictures = LENGTHS[name]
    if sound is None:
        with pytest.raises(media.Undecodable, match="no sound"):
            media.sound(CASES / name, 0, None, 16_000)
    else:
        assert abs(len(media.sound(CASES / name, 0, None, 16_000)) / 16_000 - sound) < 0.07
    if pictures is None:
        with pytest.raises(media.Undecodable, match="no video"):
            media.frames(CASES / name, 0, None, 1, 64, 90)
    else:
        assert len(media.frames(CASES / name, 0, None, 10, 64, 90)) == pytest.approx(
            max(1, pictures * 10), abs=1
        )


def test_pictures_of_a_camera_stand_upright() -> None:
    upright = media.frames(CASES / "x" / "exif_upright.jpg", 0, None, 1, 120, 90)[0]
    wanted = np.asarray(Image.open(io.BytesIO(upright)), np.int64)
    for name in ("exif.jpg", "exif.png", "exif.webp"):
        with Image.open(CASES / "x" / name) as lying:
            assert lying.getexif()[274] == 6
            turned = (lying.width, lying.height)
        jpeg = media.frames(CASES / "x" / name, 0, None, 1, 120, 90)[0]
        found = np.asarray(Image.open(io.BytesIO(jpeg)), np.int64)
        assert found.shape[:2] == turned
        assert wanted.shape[:2] in (found.shape[:2], found.shape[1::-1])


def remarks(name: str) -> list[str]:
    found: list[str] = []
    media.sound(CASES / name, 0, None, 16_000, found)
    return found


def test_what_is_odd_is_said() -> None:
    assert remarks("twoaudio.mkv") == ["sound: the default of 2 streams"]
    assert [each.split(":")[0] for each in remarks("antiphase.wav")] == [
        "channels cancel",
        "silent",
    ]
    assert [each.split(":")[0] for each in remarks("floatscale.wav")] == ["integer scale"]
    assert remarks("base.mp4") == []
    loud = media.sound(CASES / "twoaudio.mkv", 0, None, 16_000)
    assert np.abs(loud).max() > 1000
    found: list[str] = []
    jpeg = media.frames(CASES / "twovideo.mkv", 0, None, 1, 120, 90, found)[0]
    assert Image.open(io.BytesIO(jpeg)).size == (160, 120)
    assert "video: the default of 2 streams" in found
