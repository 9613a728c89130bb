"""Sound at any rate and in any container: the right pitch, length and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest

from equimodal.data import media
from equimodal.data.media import track as tracks
from equimodal.data.media.cut import Cut, pcm16
from support.clips import write_clip

SOUNDS = [".mp4", ".mov", ".mkv", ".flv", ".mpg", ".ts", ".avi", ".wav", ".mp3", ".m4a", ".flac"]
RATES = [8_000, 16_000, 22_050, 44_100, 48_000]


def tone(hz: float, rate: int, samples: int, begin: int = 0) -> np.ndarray:
    return 16384 * np.sin(2 * np.pi * hz * (begin + np.arange(samples)) / rate)


def noise_below(found: np.ndarray, wanted: np.ndarray) -> float:
    """How many dB the difference lies below the sound."""
    difference = found.astype(np.float64) - wanted
    return float(10 * np.log10(np.mean(wanted**2) / max(np.mean(difference**2), 1e-12)))


def pitch(found: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found)), 16 * len(found)))
    return float(spectrum.argmax() * rate / (16 * len(found)))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("own", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_tone_at_any_rate(tmp_path: Path, own: int, rate: int, channels: int) -> None:
    path = write_clip(tmp_path / "tone.wav", rate=own, channels=channels, hz=1000)
    found = media.sound(path, 0, None, rate)
    assert found.dtype == np.int16
    assert len(found) == rate
    inside = slice(rate // 50, -rate // 50)
    assert noise_below(found[inside], tone(1000, rate, rate)[inside]) > 75


@pytest.mark.parametrize("suffix", SOUNDS)
def test_a_tone_out_of_any_container(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"tone{suffix}", seconds=2, rate=44_100, channels=2, hz=440)
    found = media.sound(path, 0, None, 16_000)
    assert 32_000 <= len(found) <= 32_000 + 1024  # and the codec's padding
    assert abs(pitch(found[4000:28_000], 16_000) - 440) < 0.5
    assert abs(np.abs(found[4000:28_000]).max() - 16_384) < 1_500


@pytest.mark.parametrize("suffix", [".m4a", ".flac", ".wav"])
@pytest.mark.parametrize("channels", [6, 8])
def test_more_channels_than_two_are_averaged(tmp_path: Path, suffix: str, channels: int) -> None:
    """Eight planes of AAC are where PyAV's own conversion to NumPy crashes."""
    path = write_clip(tmp_path / f"many{suffix}", rate=48_000, channels=channels)
    found = media.sound(path, 0, None, 48_000)
    assert abs(pitch(found[4000:44_000], 48_000) - 440) < 0.5
    if suffix != ".m4a":  # AAC filters the channel for low frequencies
        np.testing.assert_allclose(found, tone(440, 48_000, 48_000), atol=1)


def test_mono_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    wave = np.stack([np.full(8000, 0.5), np.full(8000, -0.25)])
    path = write_clip(tmp_path / "two.wav", rate=8000, channels=2, wave=wave)
    assert set(media.sound(path, 0, None, 8000).tolist()) == {4096}


@pytest.mark.parametrize(
    ("codec", "form", "step"),
    [
        ("pcm_u8", "u8", 256),
        ("pcm_s16le", "s16", 1),
        ("pcm_s24le", "s32", 1),
        ("pcm_f32le", "flt", 1),
        ("pcm_f64le", "dbl", 1),
    ],
)
def test_all_sample_formats_are_scaled_alike(
    tmp_path: Path, codec: str, form: str, step: int
) -> None:
    path = tmp_path / "ramp.wav"
    ramp = np.linspace(-0.99, 0.99, 8000)
    kinds = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
    full = {"u8": 128, "s16": 2**15, "s32": 2**31, "flt": 1, "dbl": 1}[form]
    values = (ramp * full + (128 if form == "u8" else 0)).astype(kinds[form])
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(values[None], format=form, layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    found = media.sound(path, 0, None, 8000)
    np.testing.assert_allclose(found, ramp * 32768, atol=step)


def test_loud_samples_are_clipped_and_what_is_no_number_is_silent() -> None:
    values = np.array([-2, -1, -0.5, 0.5, 1, 2, np.nan, np.inf], np.float32)
    expected = [-32768, -32768, -16384, 16384, 32767, 32767, 0, 32767]
    assert pcm16(values).tolist() == expected


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds in which a sample's value is its number, less 24,000."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.wav"
    return write_clip(path, rate=16_000, wave=(np.arange(48_000) - 24_000) / 32_768)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (0.1, 0.35),
        (1 / 16_000, 2 / 16_000),
        (0.123456, 0.654321),
        (2.0, 2.5),
        (2.34567, 2.9),
    ],
)
def test_cuts_are_exact_to_the_sample(ramp: Path, start: float, end: float) -> None:
    first, last = round(start * 16_000), round(end * 16_000)
    found = media.sound(ramp, start, end, 16_000).astype(np.int64) + 24_000
    assert found.tolist() == list(range(first, last))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050])
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (0.7319, 1.1), (2.41, 2.9003)])
def test_a_cut_is_the_same_as_that_part_of_the_whole(
    tmp_path: Path, rate: int, start: float, end: float
) -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 48_000)
    path = write_clip(tmp_path / "noise.wav", rate=16_000, wave=noise)
    whole = media.sound(path, 0, None, rate)
    found = media.sound(path, start, end, rate)
    np.testing.assert_array_equal(found, whole[round(start * rate) : round(end * rate)])


def test_an_impulse_stays_where_it_is(tmp_path: Path) -> None:
    wave = np.zeros(44_100 * 3)
    wave[100_000] = 0.9
    path = write_clip(tmp_path / "click.wav", rate=44_100, wave=wave)
    found = media.sound(path, 2.0, 2.5, 16_000)
    assert int(np.abs(found).argmax()) == round(100_000 / 44_100 * 16_000) - 32_000


@pytest.mark.parametrize("suffix", SOUNDS)
@pytest.mark.parametrize("own", [22_050, 48_000])
def test_seeking_changes_nothing(
    tmp_path: Path, suffix: str, own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the sample; decoders of AAC and MP2 carry noise from frame to frame."""
    path = write_clip(tmp_path / f"long{suffix}", seconds=6, rate=own)
    starts = (2.0, 2.617, 3.3, 4.05, 5.21)
    sought = [media.sound(path, start, start + 0.3, 16_000) for start in starts]
    monkeypatch.setattr(tracks, "SEEK_FROM", float("inf"))
    off = 0 if suffix in {".avi", ".wav", ".mp3", ".flac"} else 2
    for start, found in zip(starts, sought, strict=True):
        whole = media.sound(path, start, start + 0.3, 16_000)
        np.testing.assert_allclose(found, whole, atol=off, rtol=0)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(suffix, "audio") for suffix in [".mp4", ".mkv", ".flv", ".ts", ".avi", ".wav", ".flac"]]
    + [(suffix, "video") for suffix in [".mp4", ".mkv", ".flv", ".ts", ".avi"]],
)
def test_decoding_begins_shortly_before_a_late_clip(
    tmp_path: Path, suffix: str, kind: Literal["audio", "video"]
) -> None:
    path = write_clip(tmp_path / f"long{suffix}", seconds=8, rate=22_050)
    with tracks.Track(path, kind) as track:
        first = next(track.frames(7.0))
        assert 5.0 < track.time(first.pts) <= (7.0 if kind == "video" else 6.5)


def test_sound_that_begins_late_is_silent_before(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.avi", seconds=3, rate=16_000)
    assert abs(int(np.abs(media.sound(path, 0, 3, 16_000)[:100]).max())) > 1000
    late = write_clip(tmp_path / "late.mp4", seconds=4, rate=16_000, sound_from=0.256)
    found = media.sound(late, 0, 4, 16_000)
    with av.open(str(late)) as file:
        silent = int(file.streams.audio[0].start_time)
    assert silent > 3000
    assert not found[:silent].any()
    assert np.abs(found[silent + 1100 : silent + 1200]).max() > 10_000
    assert len(found) == 64_000


def test_a_gap_in_the_time_stamps_is_silent_and_keeps_the_time() -> None:
    ones = np.full(1000, 0.5, np.float32)
    cut = Cut(8000, 8000, 0.0, None)
    for at in (0, 1000, 2000 + 900, 3900 + 100, 4900, None):
        cut.add(ones, at)
    found = cut.samples()
    expected = np.full(6900, 16_384)
    expected[2000:2900] = 0  # 900 late: silent; 100 late is within 50 ms and follows at once
    np.testing.assert_array_equal(found, expected)
    assert cut.heard == 6000 / 8000


def test_sound_never_goes_back() -> None:
    cut = Cut(8000, 8000, 0.0, None)
    for at, value in ((0, 0.25), (1000, 0.5), (0, 0.75)):
        cut.add(np.full(1000, value, np.float32), at)
    assert cut.samples()[500::1000].tolist() == [8192, 16_384, 24_576]


def test_a_time_stamp_of_years_takes_no_memory() -> None:
    cut = Cut(8000, 16_000, 0.0, None)
    cut.add(np.zeros(1000, np.float32), 0)
    cut.add(np.zeros(1000, np.float32), 8000 * 10**8)
    assert len(cut.samples()) < 20_000
    assert cut.heard == 0.25


def test_the_same_samples_on_each_run(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "again.mp4", rate=44_100, channels=2)
    first = media.sound(path, 0, None, 16_000)
    np.testing.assert_array_equal(media.sound(path, 0, None, 16_000), first)
