"""Real downloads: GRID, FSDD and MNIST, where they are at hand."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from equimodal.data import media
from equimodal.data.media.file import growth
from support.clips import reencode, size

RAW = Path(__file__).parents[5] / "shared" / "data" / "raw"
pytestmark = pytest.mark.skipif(not RAW.is_dir(), reason="no raw data at ../shared/data/raw")


@pytest.fixture(scope="module")
def clip() -> Path:
    return sorted((RAW / "grid" / "s1").glob("*.mpg"))[0]


def test_grid_clips_come_out_whole() -> None:
    for path in sorted((RAW / "grid" / "s1").glob("*.mpg"))[:6]:
        assert len(media.frames(path, 0, None, 25, 64, 90)) == 75
        assert len(media.frames(path, 0, 3, 1, 64, 90)) == 3
        assert 46_000 < len(media.sound(path, 0, None, 16_000)) <= 48_000
        assert 46_000 < len(media.sound(path, 0, 3, 16_000)) <= 48_000


def test_grid_frames_are_those_of_pyav(clip: Path) -> None:
    """A slow twin: all frames in full, scaled by Pillow."""
    with av.open(str(clip)) as file:
        whole = [frame.to_image() for frame in file.decode(video=0)]
    found = media.frames(clip, 1.2, 1.6, 25, 256, 95)
    assert [size(jpeg) for jpeg in found] == [(320, 256)] * 10
    for index, jpeg in enumerate(found):
        got = np.asarray(Image.open(io.BytesIO(jpeg)), np.float64)
        errors = [
            np.abs(got - np.asarray(whole[n].resize((320, 256), Image.Resampling.BICUBIC))).mean()
            for n in range(30 + index - 2, 30 + index + 3)
        ]
        assert int(np.argmin(errors)) == 2, "neighbours in time are further away"
        assert errors[2] < 3


@pytest.mark.parametrize("suffix", [".mp4", ".flv", ".avi"])
def test_grid_clips_in_other_containers(clip: Path, tmp_path: Path, suffix: str) -> None:
    again = reencode(clip, tmp_path / f"again{suffix}")
    assert abs(len(media.frames(again, 0, None, 25, 64, 90)) - 75) <= 2  # FLV counts its padding
    before, after = media.sound(clip, 0, None, 16_000), media.sound(again, 0, None, 16_000)
    lag = np.correlate(after[:32_000].astype(float), before[2000:22_000].astype(float)).argmax()
    padding = 1152 / 44_100 * 16_000  # FLV cannot say that the codec's first frame is none
    assert 0 <= lag - 2000 <= (2 * padding if suffix == ".flv" else 1)


def test_speech_at_its_own_rate_is_what_python_reads() -> None:
    recordings = sorted((RAW / "fsdd" / "recordings").glob("*.wav"))
    assert all(growth(path) == 1 for path in recordings)
    for path in recordings[::300]:
        with wave.open(str(path)) as file:
            assert file.getnchannels() == 1
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        np.testing.assert_array_equal(media.sound(path, 0, None, rate), samples)


def test_digits_of_mnist() -> None:
    path = RAW / "mnist" / "t10k-images-idx3-ubyte.gz"
    digit = np.asarray(Image.open(io.BytesIO(media.picture(path, 7))))
    assert digit.shape == (28, 28)
    assert digit.max() > 200
    assert not digit[:2].any()
    with pytest.raises(media.Undecodable, match="no image with this index: 1500 of 1500"):
        media.picture(path, 1500)
