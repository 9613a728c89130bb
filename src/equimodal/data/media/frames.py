"""Pictures of a video at even distances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from equimodal.data.media.keys import TIE
from equimodal.data.media.losses import STILL
from equimodal.data.media.remarks import Light, several
from equimodal.data.media.span import MOST, Span, spare
from equimodal.data.media.track import Track
from equimodal.data.media.upright import encoded, shown_size, upright
from equimodal.system.extras import require


def frames(
    path: Path,
    start: float,
    end: float | None,
    fps: float,
    side: int,
    quality: int,
    remarks: list[str] | None = None,
) -> list[bytes]:
    """Return pictures from the middles of equal parts of a clip, as JPEG, upright.

    There are ``max(1, round(seconds * fps))`` parts, by Python's `round`. The picture at a moment
    is the last one that begins before it, at it, or less than a millisecond after it; before the
    first picture it is the first. So one picture may stand for several moments, and for all of a
    pause. All pictures of a clip have the size that suits the first of them.

    Args:
        path: of the video file.
        start: where the clip begins, in seconds from the moment at which the first of the file's
            streams begins.
        end: where it ends; None for the end of the pictures.
        fps: pictures for each second of the clip.
        side: shorter side of a picture, in pixels; smaller ones are not enlarged.
        quality: of JPEG, 1 to 95.
        remarks: is added to, where the pictures are odd: see `equimodal.data.media`.

    Raises:
        Undecodable: see `equimodal.data.media`.
    """
    require("data", "av", "numpy", "PIL")
    span = Span(start, end)
    with Track(path, "video") as track:
        until = _end(track, span) if end is None else end
        count = max(1, round((until - start) * fps))
        chosen = _Chosen(track, start, until, count, side, quality)
        some = track.chosen(chosen.moments) if end is None else None
        covered = 0.0 if some is None else chosen.go(some, until)
        if some is None or not chosen.exact:
            track.rewind()
            chosen = _Chosen(track, start, until, count, side, quality)
            covered = chosen.go(track.frames(start))
        if not chosen.found:
            last = track.measured()
            track.refuse_none(last)
            span.refuse_empty(max(last, track.end(last)))
        span.refuse_short(covered, until)
        if remarks is not None:
            remarks += [*several(track), *chosen.light.remarks()]
    # What lasts until the end of the file stands for the moments after it too: they are few.
    return chosen.found + chosen.found[-1:] * (count - len(chosen.found))


def _end(track: Track, span: Span) -> float:
    """Return where the pictures end, if that is about where they should."""
    end = track.measured()
    track.refuse_none(end)
    if track.due - end > spare(track.due - span.start):
        span.refuse_short(end - span.start, track.due)
    span.refuse_empty(end)
    return end


@dataclass(frozen=True)
class _Picture:
    """A frame, when it begins, and how long it lasts by its own account, in seconds."""

    frame: Any
    since: float
    lasts: float


class _Chosen:
    """The pictures at the middles of so many equal parts of a clip.

    Attributes:
        found: those that there are.
        light: how bright they are.
    """

    def __init__(
        self, track: Track, start: float, end: float, count: int, side: int, quality: int
    ) -> None:
        self.track = track
        self.start = start
        self.end = end
        self.count = count
        self.side = side
        self.quality = quality
        self.found: list[bytes] = []
        self.light = Light()
        self._size: tuple[int, int] | None = None

    @property
    def moments(self) -> list[float]:
        """The middles of the parts."""
        part = (self.end - self.start) / self.count
        return [self.start + (place + 0.5) * part for place in range(self.count)]

    @property
    def exact(self) -> bool:
        """Whether all have been found among some of the pictures, and nothing was lost."""
        lost = self.track.losses.within(self.start, self.end)
        return len(self.found) == self.count and lost <= 0

    def go(self, frames: Iterator[Any], until: float | None = None) -> float:
        """Look for them, and return how many seconds of the clip pictures cover.

        Args:
            frames: in order of presentation.
            until: when the last of them ends, if that is known.
        """
        last: _Picture | None = None
        for picture in self._pictures(frames):
            if last is not None:
                if picture.since - last.since > MOST and not self.track.believes(picture.since):
                    return self._covered(last.since + STILL)  # a clock that has gone astray
                self._show(last, picture.since - TIE)
                if len(self.found) == self.count:  # what comes after the last moment is not seen
                    return self._covered(self.end)
            last = picture
        if last is None:
            return 0.0
        self.track.losses.ended()
        if until is None:
            until = last.since + (last.lasts or self.track.step)
        if self.track.complete and self.track.stated is not None:
            until = max(self.track.stated, last.since)
        if until > self.start:
            self._show(last, min(self.end, last.since + TIE), least=1)
        return self._covered(until)

    def _show(self, picture: _Picture, until: float, least: int = 0) -> None:
        """Keep a picture for all moments before another one begins."""
        part = (self.end - self.start) / self.count
        jpeg: bytes | None = None
        while len(self.found) < self.count and (
            least > 0 or self.start + (len(self.found) + 0.5) * part < until
        ):
            least -= 1
            if jpeg is None:
                self._size = self._size or _size(self.track, picture.frame, self.side)
                pixels = upright(picture.frame, self._size)
                self.light.add(pixels)
                jpeg = encoded(pixels, self.quality)
            self.found.append(jpeg)

    def _covered(self, until: float) -> float:
        end = min(until, self.end)
        return max(0.0, end - self.start - self.track.losses.within(self.start, end))

    def _pictures(self, frames: Iterator[Any]) -> Iterator[_Picture]:
        """Yield frames in order; one without a time, or one that goes back, is a step later."""
        since: float | None = None
        step = self.track.step
        for frame in frames:
            stamp = None if frame.pts is None else self.track.time(frame.pts)
            self.track.losses.came(stamp)
            if since is None:
                since = 0.0 if stamp is None else stamp
            else:
                late = stamp is not None and stamp > since
                since = stamp if late and stamp is not None else since + step
            yield _Picture(frame, since, self.track.lasts(frame))


def _size(track: Track, frame: Any, side: int) -> tuple[int, int]:
    aspect = track.stream.sample_aspect_ratio
    return shown_size(frame.width, frame.height, aspect and Fraction(aspect), side)
