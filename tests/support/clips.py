"""Tiny clips whose pictures say which they are and whose sound is a tone, in many containers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

BITS = 16  # of the number in each picture, as two rows of eight dark or bright blocks
RATES_OF_MP3_IN_FLV = {11_025, 22_050, 44_100}
COARSE = Fraction(1, 1000)  # what pictures with times of their own are timed in


def write_clip(
    path: Path,
    *,
    seconds: float = 1.0,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    rate: int = 16_000,
    channels: int = 1,
    hz: float = 440.0,
    sound: bool = True,
    video: bool = True,
    times: Sequence[float] | None = None,
    sound_from: float = 0.0,
    video_from: float = 0.0,
    gop: int = 12,
    rotation: int = 0,
    flipped: bool = False,
    pixel_aspect: Fraction | None = None,
    tags: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    paint: Callable[[int, int, int], np.ndarray] | None = None,
    wave: np.ndarray | None = None,
) -> Path:
    """Write a clip; the suffix of its name chooses container and codecs.

    Args:
        path: ending in .mp4, .mov, .mkv, .flv, .mpg, .ts, .avi, .wav, .mp3, .m4a, .flac or .ogg.
        seconds: of pictures and of sound.
        fps: pictures a second.
        size: width and height of pictures.
        rate: of sound.
        channels: of sound, 1, 2, 6 or 8.
        hz: of the tone, amplitude one half.
        sound: whether there is any, if the container can hold it.
        video: whether there is any, if the container can hold it.
        times: of each picture in seconds, for a variable rate, instead of ``seconds * fps``.
        sound_from: when the sound begins.
        video_from: when the pictures begin.
        gop: pictures from one key picture to the next.
        rotation: counterclockwise, in degrees, that players shall apply.
        flipped: whether players shall mirror pictures.
        pixel_aspect: width of a pixel by its height.
        tags: title and the like.
        options: of the container.
        paint: number, width, height -> picture, uint8 (height, width, 3), instead of `painted`.
        wave: sound instead of the tone, float (T,) or (channels, T).
    """
    has_video, has_sound = _codecs(path.suffix, rate)
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(tags or {})
        tracks: list[Iterator[tuple[float, Any]]] = []
        if video and has_video:
            stream = container.add_stream(has_video, rate=fps, options=_fast(has_video))
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.gop_size = gop
            stream.bit_rate = 2_000_000
            stream.codec_context.thread_count = 1  # the same bytes on each run
            if times is not None:
                stream.codec_context.time_base = COARSE
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation or flipped:
                stream.set_display_rotation(rotation, hflip=flipped)
            base = Fraction(1, fps) if times is None else COARSE
            when = (
                range(round(seconds * fps)) if times is None else [round(t / base) for t in times]
            )
            later = round(video_from / base)
            pictures = _pictures([t + later for t in when], base, size, paint or painted)
            tracks.append(_encoded(stream, pictures))
        if sound and has_sound:
            layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
            stream = container.add_stream(has_sound, rate=rate, layout=layout)
            if wave is None:
                wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
            samples = np.broadcast_to(wave, (channels, wave.shape[-1])).astype(np.float32)
            tracks.append(_encoded(stream, _sounds(samples, rate, layout, sound_from)))
        _interleave(container, tracks)
    return path


def reencode(source: Path, path: Path) -> Path:
    """Write all pictures and the sound of a file in the container and codecs of another suffix."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as container:
        tracks: list[Iterator[tuple[float, Any]]] = []
        rate = clip.streams.audio[0].rate if clip.streams.audio else 16_000
        for_video, for_sound = _codecs(path.suffix, rate)
        if clip.streams.video and for_video:
            old = clip.streams.video[0]
            stream = container.add_stream(
                for_video, rate=old.average_rate, options=_fast(for_video)
            )
            stream.width, stream.height, stream.pix_fmt = old.width, old.height, "yuv420p"
            stream.bit_rate = 2_000_000
            stream.codec_context.thread_count = 1
            tracks.append(_encoded(stream, _renumbered(source, "video", old.average_rate)))
        if clip.streams.audio and for_sound:
            layout = clip.streams.audio[0].layout.name
            stream = container.add_stream(for_sound, rate=rate, layout=layout)
            tracks.append(_encoded(stream, _renumbered(source, "audio", rate)))
        _interleave(container, tracks)
    return path


def truncate(path: Path, share: float, to: Path | None = None) -> Path:
    """Keep the first share of a file's bytes, there or in another file."""
    content = path.read_bytes()
    to = to or path
    to.write_bytes(content[: int(len(content) * share)])
    return to


def overwrite(
    path: Path, first: float, last: float, byte: int | None = None, seed: int = 0
) -> Path:
    """Put one byte, or random ones, in the place of the bytes from one share of a file to another."""
    content = bytearray(path.read_bytes())
    begin, end = int(len(content) * first), int(len(content) * last)
    noise = np.random.default_rng(seed).integers(0, 256, end - begin, np.uint8).tobytes()
    content[begin:end] = noise if byte is None else bytes([byte]) * (end - begin)
    path.write_bytes(content)
    return path


def painted(number: int, width: int, height: int) -> np.ndarray:
    """Return a picture that holds a number: eight bits above eight, the lowest at the top left."""
    bits = (number >> np.arange(BITS)) & 1
    rows = np.arange(height) * 2 // height
    columns = np.arange(width) * 8 // width
    grey = np.where(bits[rows[:, None] * 8 + columns], 215, 40).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def number(jpeg: bytes) -> int:
    """Return the number that a picture holds."""
    grey = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), np.float64)
    rows, columns = grey.shape
    found = 0
    for bit in range(BITS):
        top, left = (bit // 8 + 0.5) * rows / 2, (bit % 8 + 0.5) * columns / 8
        found |= int(grey[int(top), int(left)] > 127) << bit
    return found


def size(jpeg: bytes) -> tuple[int, int]:
    """Return width and height of a picture."""
    return Image.open(io.BytesIO(jpeg)).size


def _codecs(suffix: str, rate: int) -> tuple[str | None, str | None]:
    h264 = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    return {
        ".mp4": (h264, "aac"),
        ".mov": (h264, "aac"),
        ".mkv": (h264, "aac"),
        ".flv": ("flv", "libmp3lame" if rate in RATES_OF_MP3_IN_FLV else "aac"),
        ".mpg": ("mpeg1video", "mp2"),
        ".ts": ("mpeg2video", "mp2"),
        ".avi": ("mpeg4", "pcm_s16le"),
        ".wav": (None, "pcm_s16le"),
        ".mp3": (None, "libmp3lame"),
        ".m4a": (None, "aac"),
        ".flac": (None, "flac"),
        ".ogg": (None, "libopus"),
    }[suffix]


def _fast(codec: str) -> dict[str, str]:
    return {"preset": "ultrafast", "crf": "20"} if codec == "libx264" else {}


def _pictures(
    when: Sequence[int],
    base: Fraction,
    size: tuple[int, int],
    paint: Callable[[int, int, int], np.ndarray],
) -> Iterator[av.VideoFrame]:
    for index, time in enumerate(when):
        frame = av.VideoFrame.from_ndarray(paint(index, *size), format="rgb24")
        frame.pts, frame.time_base = time, base
        yield frame


def _sounds(samples: np.ndarray, rate: int, layout: str, begin: float) -> Iterator[av.AudioFrame]:
    whole = (samples * 32768).round().clip(-32768, 32767).astype(np.int16)
    for first in range(0, whole.shape[1], 1024):
        part = np.ascontiguousarray(whole[:, first : first + 1024].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
        frame.sample_rate = rate
        frame.pts, frame.time_base = first + round(begin * rate), Fraction(1, rate)
        yield frame


def _renumbered(source: Path, kind: str, rate: Any) -> Iterator[Any]:
    """Yield the frames of a file, timed from 0 without gaps."""
    with av.open(str(source)) as clip:
        position = 0
        for frame in clip.decode(**{kind: 0}):
            frame.pts, frame.time_base = position, 1 / Fraction(rate)
            if kind == "video":
                frame.pict_type = 0  # the encoder chooses its own key pictures
            position += frame.samples if kind == "audio" else 1
            yield frame


def _encoded(stream: Any, frames: Iterator[Any]) -> Iterator[tuple[float, Any]]:
    for frame in frames:
        time = float(frame.pts * frame.time_base)
        yield from ((time, packet) for packet in stream.encode(frame))
    yield from ((float("inf"), packet) for packet in stream.encode(None))


def _interleave(container: Any, tracks: list[Iterator[tuple[float, Any]]]) -> None:
    """Write packets of all tracks in the order of their times."""
    waiting = [next(track, None) for track in tracks]
    while any(waiting):
        first = min((each[0], which) for which, each in enumerate(waiting) if each)[1]
        container.mux(waiting[first][1])  # type: ignore[index]
        waiting[first] = next(tracks[first], None)
