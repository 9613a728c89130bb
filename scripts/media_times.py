"""Where a click and a flash come out of each container and codec, against where they were put.

Prints the table of `docs/raw-data.md`. Needs nothing but the extra `data`:

    python scripts/media_times.py
"""

from __future__ import annotations

import io
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from equimodal.data import media

# Container, codec of pictures, codec of sound.
PAIRS = (
    ("mp4", "libx264", "aac"),
    ("mov", "mpeg4", "aac"),
    ("mp4", "mpeg4", "libmp3lame"),
    ("mkv", "libx264", "aac"),
    ("mkv", "mpeg4", "libmp3lame"),
    ("mkv", "mpeg4", "ac3"),
    ("mkv", "libx264", "flac"),
    ("webm", "libvpx", "libopus"),
    ("flv", "libx264", "aac"),
    ("flv", "flv", "libmp3lame"),
    ("ts", "libx264", "aac"),
    ("ts", "mpeg2video", "mp2"),
    ("ts", "libx264", "ac3"),
    ("avi", "mpeg4", "pcm_s16le"),
    ("avi", "mpeg4", "libmp3lame"),
    ("avi", "mpeg4", "mp2"),
    ("mpg", "mpeg1video", "mp2"),
    ("mpg", "mpeg2video", "ac3"),
)
FPS = 25
SECONDS = 6
MOMENT = 2.52  # of click and flash, in seconds: where a picture begins
CUTS = ((0.0, None), (0.0, 6.0), (2.2, 3.0), (2.4, 2.9))


class Found(NamedTuple):
    """How late click and flash are in a clip: in seconds, and in pictures."""

    sound: float
    pictures: int


def write(path: Path, pictures: str, sound: str) -> Path:
    """Write six seconds of black and silence, with a click and a flash at one moment."""
    rate = 48_000 if sound == "libopus" else 44_100
    wave = np.zeros(SECONDS * rate, np.int16)
    click = round(MOMENT * rate)
    wave[click : click + 2] = 30_000, -30_000
    with av.open(str(path), "w") as file:
        fast = {"preset": "ultrafast", "bf": "2"} if pictures == "libx264" else {}
        video: Any = file.add_stream(pictures, rate=FPS, options=fast)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.gop_size, video.bit_rate, video.codec_context.thread_count = 10, 500_000, 1
        audio: Any = file.add_stream(sound, rate=rate, layout="mono")
        packets = []
        for number in range(SECONDS * FPS):
            lit = round(MOMENT * FPS) <= number < round(MOMENT * FPS) + 5
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 * lit, np.uint8))
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode(None)
        for first in range(0, len(wave), 1024):
            part = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], layout="mono")
            part.sample_rate, part.pts, part.time_base = rate, first, Fraction(1, rate)
            packets += audio.encode(part)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            file.mux(packet)
    return path


def decoded_late(path: Path) -> int:
    """Return how many samples late the click is in all that FFmpeg decodes, one after the other."""
    with av.open(str(path)) as file:
        rate = file.streams.audio[0].rate
        mono = av.AudioResampler(format="s16", layout="mono", rate=rate)
        frames = [each for frame in file.decode(audio=0) for each in mono.resample(frame)]
        wave = np.concatenate([each.to_ndarray()[0] for each in frames]).astype(np.int64)
    return int(wave.argmax()) - round(MOMENT * rate)


def found(path: Path, start: float, end: float | None) -> Found:
    """Return where click and flash are in a clip of a file."""
    rate = 48_000
    wave = media.sound(path, start, end, rate).astype(np.int64)
    click = wave.argmax() / rate + start
    jpegs = media.frames(path, start, end, 4 * FPS, 48, 90)
    lit = [np.asarray(Image.open(io.BytesIO(jpeg))).mean() > 128 for jpeg in jpegs]
    flash = lit.index(True) / (4 * FPS) + start
    return Found(float(click) - MOMENT, round((flash - MOMENT) * FPS))


def main() -> None:
    """Print the table."""
    print(f"PyAV {av.__version__}, {', '.join(versions())}", end="\n\n")
    print("| container | codecs | decoded late by | sound of clips is off by | pictures |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for container, pictures, sound in PAIRS:
            path = write(Path(folder) / f"{pictures}-{sound}.{container}", pictures, sound)
            clips = [found(path, *cut) for cut in CUTS]
            late = max((clip.sound for clip in clips), key=abs)
            frames = max((clip.pictures for clip in clips), key=abs)
            print(
                f"| {container} | {pictures}, {sound} | {decoded_late(path):,} samples | "
                f"{1000 * late:.2f} ms | {f'{frames:+d} frame' if frames else 'exact'} |"
            )


def versions() -> list[str]:
    """Return the versions of the libraries of FFmpeg that decode and read containers."""
    wanted = ("libavcodec", "libavformat")
    return [f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in wanted]


if __name__ == "__main__":
    main()
