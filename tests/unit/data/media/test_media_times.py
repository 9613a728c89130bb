"""A clip cut from one second to another is the same, whatever container and codecs hold it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from equimodal.data import media

SCRIPT = Path(__file__).parents[4] / "scripts" / "media_times.py"


def script() -> ModuleType:
    """The script that prints the table in the docs: what it says is what is tested."""
    spec = importlib.util.spec_from_file_location("media_times", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


times = script()


@pytest.mark.parametrize(("container", "pictures", "sound"), times.PAIRS)
def test_click_and_flash_are_where_they_were_put(
    tmp_path: Path, container: str, pictures: str, sound: str
) -> None:
    path = times.write(tmp_path / f"clip.{container}", pictures, sound)
    for start, end in times.CUTS:
        click, flash = times.found(path, start, end)
        assert abs(click) < 1e-3
        assert flash in ((0, 1) if (container, sound) == ("avi", "libmp3lame") else (0,))


def test_what_is_late_without_care_is_what_the_codec_puts_first(tmp_path: Path) -> None:
    """So that the test above is seen to test something."""
    late = {
        "mp4": ("aac", 0),
        "flv": ("aac", 1024),
        "ts": ("mp2", 481),
        "avi": ("libmp3lame", 1105),
        "mpg": ("ac3", 256),
    }
    for container, (sound, samples) in late.items():
        path = (
            times.write(tmp_path / f"clip.{container}", "mpeg2video", sound)
            if (container in ("ts", "mpg"))
            else times.write(
                tmp_path / f"clip.{container}", "flv" if container == "flv" else "mpeg4", sound
            )
        )
        assert abs(times.decoded_late(path) - samples) <= 2


@pytest.mark.parametrize("kind", ["aac", "mp3", "mp3 without a tag", "ac3", "mp2"])
def test_raw_streams_begin_with_their_first_sample(tmp_path: Path, kind: str) -> None:
    codec, form, options = {
        "aac": ("aac", "adts", {}),
        "mp3": ("libmp3lame", "mp3", {}),
        "mp3 without a tag": ("libmp3lame", "mp3", {"write_xing": "0"}),
        "ac3": ("ac3", "ac3", {}),
        "mp2": ("mp2", "mp2", {}),
    }[kind]
    rate = 48_000
    wave = np.zeros(2 * rate, np.int16)
    wave[rate : rate + 2] = 30_000, -30_000
    path = tmp_path / f"raw.{form}"
    with av.open(str(path), "w", format=form, options=options) as file:
        track = file.add_stream(codec, rate=rate, layout="mono")
        for first in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], layout="mono")
            frame.sample_rate, frame.pts = rate, first
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    for start, end in ((0.0, None), (0.75, 1.25)):
        found = media.sound(path, start, end, rate).astype(np.int64)
        assert abs(int(found.argmax()) / rate + start - 1) < 1e-3


@pytest.mark.parametrize("container", ["flv", "ts"])
def test_sound_recorded_along_with_pictures_keeps_its_time_stamps(
    tmp_path: Path, container: str
) -> None:
    """A recorder begins both at 0, with priming in the sound: players show it so, and so do we."""
    made = times.write(tmp_path / "made.mp4", "libx264", "aac")
    path = tmp_path / f"recorded.{container}"
    with av.open(str(made)) as old, av.open(str(path), "w") as new:
        streams = {each.index: new.add_stream_from_template(each) for each in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts, packet.dts = packet.pts + 1024, packet.dts + 1024
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    click, flash = times.found(path, 0.0, None)
    assert flash == 0
    assert abs(click - 1024 / 44_100) < 1e-3
