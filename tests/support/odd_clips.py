"""Clips as cameras, phones and downloads make them: pauses, late streams, odd frames, several tracks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from support.clips import painted

TICK = Fraction(1, 12_800)
Paint = Callable[[int, int, int], np.ndarray]


def film(
    path: Path,
    when: Sequence[float],
    *,
    until: float | None = None,
    sound: Sequence[np.ndarray] = (),
    rate: int = 44_100,
    b_frames: int = 0,
    size: tuple[int, int] = (64, 48),
    paint: Paint = painted,
    faststart: bool = False,
    default: int | None = None,
) -> Path:
    """Write H.264 pictures at given moments and tracks of sound, as MP4, MOV or Matroska.

    Args:
        path: of the file.
        when: each picture begins, in seconds.
        until: when the last picture ends, where the container keeps that.
        sound: for each track its samples, float (T,), from 0 s.
        rate: of sound.
        b_frames: at most between two others, so that pictures come in another order.
        size: width and height.
        paint: number, width, height -> picture.
        faststart: with the index of an MP4 at its beginning.
        default: which track of sound has the mark.
    """
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as file:
        pictures = file.add_stream(
            "libx264", rate=25, options={"preset": "veryfast", "bf": str(b_frames), "g": "12"}
        )
        pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
        pictures.codec_context.time_base = TICK
        pictures.codec_context.thread_count = 1
        tracks = [file.add_stream("aac", rate=rate, layout="mono") for _ in sound]
        for number, track in enumerate(tracks):
            marked = default is not None and number == default
            track.disposition = av.stream.Disposition.default if marked else 0
        packets: list[Any] = []
        ends = [*when[1:], until if until is not None else when[-1] + 0.04]
        lasting = {}
        for index, (time, end) in enumerate(zip(when, ends, strict=True)):
            frame = av.VideoFrame.from_ndarray(paint(index, *size), format="rgb24")
            frame.pts, frame.time_base = round(time / TICK), TICK
            lasting[frame.pts] = round(end / TICK) - frame.pts
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        for packet in packets:
            packet.duration = lasting[packet.pts]
        for track, samples in zip(tracks, sound, strict=True):
            packets += spoken(track, samples, rate)
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            file.mux(packet)
    return path


def spoken(track: Any, samples: np.ndarray, rate: int) -> list[Any]:
    """Return the packets of sound, float (T,)."""
    packets: list[Any] = []
    whole = (samples * 32767).round().astype(np.int16)
    for first in range(0, len(whole), 1024):
        frame = av.AudioFrame.from_ndarray(whole[None, first : first + 1024], layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        packets += track.encode(frame)
    return packets + track.encode(None)


def remuxed(source: Path, path: Path) -> Path:
    """Put the same packets into the container of another suffix."""
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        streams = {each.index: new.add_stream_from_template(each) for each in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return path


def tone(hz: float, seconds: float, rate: int = 44_100, loud: float = 0.5) -> np.ndarray:
    """Return a sine, float (T,)."""
    return loud * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def photographed(
    number: int, orientation: int | None, size: tuple[int, int] = (64, 48), form: str = "JPEG"
) -> bytes:
    """Return a picture as a camera stores it: lying as held, with EXIF that says how to turn it."""
    file = io.BytesIO()
    picture = Image.fromarray(painted(number, *size))
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Camera"
    if orientation is not None:
        exif[0x0112] = orientation
        picture = picture.transpose(STORED[orientation]) if orientation in STORED else picture
    picture.save(file, form, exif=exif, quality=95)
    return file.getvalue()


# How a picture lies in the file, of which EXIF then says by which number it is turned back.
STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
}


def camera(path: Path, pictures: Iterable[bytes], size: tuple[int, int], fps: int = 8) -> Path:
    """Write a clip of Motion JPEG whose frames are files of JPEG as they are, with a tone."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        track = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        stream.codec_context.open()
        count = 0
        for count, content in enumerate(pictures, start=1):
            packet = av.Packet(content)
            packet.stream = stream
            packet.pts = packet.dts = count - 1
            packet.time_base, packet.duration = Fraction(1, fps), 1
            packet.is_keyframe = True
            file.mux(packet)
        for packet in spoken(track, tone(300, count / fps, 16_000), 16_000):
            file.mux(packet)
    return path
