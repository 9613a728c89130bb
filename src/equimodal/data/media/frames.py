"""Pictures of a video at even distances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from equimodal.data.media.span import MOST, Span, spare
from equimodal.data.media.track import Track
from equimodal.data.media.upright import jpeg, shown_size
from equimodal.system.extras import require

TIE = 1e-3  # FLV and Matroska round times to milliseconds
STILL = 1.0  # seconds for which a picture may last without saying so


def frames(
    path: Path, start: float, end: float | None, fps: float, side: int, quality: int
) -> list[bytes]:
    """Return pictures from the middles of equal parts of a clip, as JPEG, upright.

    There are ``max(1, round(seconds * fps))`` parts, by Python's `round`. The picture at a moment
    is the last one that begins before it, at it, or less than a millisecond after it; before the
    first picture it is the first. So one picture may stand for several moments. All pictures of a
    clip have the size that suits the first of them.

    Args:
        path: of the video file.
        start: where the clip begins, in seconds from the moment at which the first of the file's
            streams begins.
        end: where it ends; None for the end of the pictures.
        fps: pictures for each second of the clip.
        side: shorter side of a picture, in pixels; smaller ones are not enlarged.
        quality: of JPEG, 1 to 95.

    Raises:
        Undecodable: see `equimodal.data.media`.
    """
    require("data", "av", "numpy", "PIL")
    span = Span(start, end)
    with Track(path, "video") as track:
        until = _end(track, span) if end is None else end
        count = max(1, round((until - start) * fps))
        found, covered = _chosen(track, start, until, count, side, quality)
        if covered <= 0:
            last = track.measured()
            track.refuse_none(last)
            span.refuse_empty(max(last, track.stated or 0.0))
        span.refuse_short(covered, until)
    # What lasts until the end of the file stands for the moments after it too: they are few.
    return found + found[-1:] * (count - len(found))


def _end(track: Track, span: Span) -> float:
    """Return where the pictures end, if that is about where the file says."""
    end = track.measured()
    track.refuse_none(end)
    if track.stated is not None and track.stated - end > spare(track.stated - span.start):
        span.refuse_short(end - span.start, track.stated)
    span.refuse_empty(end)
    return end


@dataclass(frozen=True)
class _Picture:
    """A frame, when it begins, and how long it lasts by its own account, in seconds."""

    frame: Any
    since: float
    lasts: float


def _chosen(
    track: Track, start: float, end: float, count: int, side: int, quality: int
) -> tuple[list[bytes], float]:
    """Return the pictures at the moments, as far as there are any, and the seconds covered."""
    part = (end - start) / count
    found: list[bytes] = []
    covered = 0.0
    size: tuple[int, int] | None = None
    last: _Picture | None = None
    for picture in _pictures(track, start):
        if last is not None:
            shown: bytes | None = None
            covered += _overlap(start, end, last, max(last.lasts, STILL), picture.since)
            if min(picture.since, end) - start - covered > MOST:  # a clock that has gone astray
                return found, covered
            while len(found) < count and start + (len(found) + 0.5) * part < picture.since - TIE:
                size = size or _size(track, last.frame, side)
                shown = shown or jpeg(last.frame, size, quality)
                found.append(shown)
            if len(found) == count:  # what comes after the last moment is not looked at
                return found, covered + max(0.0, end - max(picture.since, start))
        last = picture
    if last is not None:
        covered += _overlap(start, end, last, last.lasts or float(track.step), end)
        found.append(jpeg(last.frame, size or _size(track, last.frame, side), quality))
    return found, covered


def _pictures(track: Track, start: float) -> Iterator[_Picture]:
    """Yield frames in order; one without a time, or one that goes back, is a mean step later."""
    since: float | None = None
    for frame in track.frames(start):
        stamp = None if frame.pts is None else float(track.time(frame.pts))
        if since is None:
            since = 0.0 if stamp is None else stamp
        else:
            late = stamp is not None and stamp > since
            since = stamp if late and stamp is not None else since + float(track.step)
        yield _Picture(frame, since, float(track.seconds(frame.duration or 0)))


def _overlap(start: float, end: float, picture: _Picture, lasts: float, until: float) -> float:
    """Return for how many seconds of the clip a picture is seen."""
    return max(0.0, min(picture.since + lasts, until, end) - max(picture.since, start))


def _size(track: Track, frame: Any, side: int) -> tuple[int, int]:
    aspect = track.stream.sample_aspect_ratio
    return shown_size(frame.width, frame.height, aspect and Fraction(aspect), side)
