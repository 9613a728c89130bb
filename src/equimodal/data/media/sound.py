"""Sound of a file at another rate, cut to the sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from equimodal.data.media.cut import GAP, Cut
from equimodal.data.media.mix import Block, Mix
from equimodal.data.media.remarks import heard, several
from equimodal.data.media.span import Span
from equimodal.data.media.track import Track
from equimodal.system.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRIFT = 1e-4  # seconds by which time stamps are off besides being rounded to their unit


def sound(
    path: Path, start: float, end: float | None, rate: int, remarks: list[str] | None = None
) -> NDArray[np.int16]:
    """Return sound as int16 (T,): the mean of all channels, resampled.

    Sample k of a file is what sounds at ``k / rate`` seconds; a clip holds those from
    ``round(start * rate)`` to before ``round(end * rate)``, or fewer if the file ends before.
    Stretches of more than 50 ms for which the file has no sound, by its time stamps, are silent.
    Values beyond 16 bit are clipped; floating-point samples in the scale of integers are divided
    by the largest of these.

    Args:
        path: of a file with sound.
        start: where the clip begins, in seconds from the moment at which the first of the file's
            streams begins.
        end: where it ends; None for the end of the sound.
        rate: samples a second to return.
        remarks: is added to, where the sound is odd: see `equimodal.data.media.remarks`.

    Raises:
        Undecodable: see `equimodal.data.media`.
    """
    require("data", "av", "numpy")
    span, mix, told = Span(start, end), Mix(), list[str]()
    samples = _samples(path, span, rate, mix, told)
    if (scale := mix.scale()) > 1:
        told.append(f"integer scale: samples of up to {mix.peak:,.0f} instead of 1")
        mix = Mix(scale)
        samples = _samples(path, span, rate, mix, [])
    if remarks is not None:
        remarks += [*told, *mix.remarks(), *heard(samples)]
    return samples


def _samples(path: Path, span: Span, rate: int, mix: Mix, told: list[str]) -> NDArray[np.int16]:
    cut: Cut | None = None
    with Track(path, "audio") as track:
        told += several(track)
        block = Block(mix)
        for frame in track.frames(span.start):
            if not frame.samples:
                continue
            if cut is None:
                cut = Cut(
                    frame.sample_rate,
                    rate,
                    span.start,
                    span.end,
                    lambda begin, end: track.losses.within(begin, end),
                )
            if frame.sample_rate != cut.own:  # a damaged header: streams keep their rate
                continue
            at = number(track, frame)
            if not block.takes(frame, at, GAP * cut.own):
                cut.add(*block.mixed())
            block.add(frame, at)
            if block.large or cut.enough(block.end):
                cut.add(*block.mixed())
                if cut.full:
                    break
        if cut is not None and block.end:
            cut.add(*block.mixed())
        found, reached = (0.0, 0.0) if cut is None else (cut.heard, cut.reached)
        due = track.end(reached)
        if found <= 0:
            track.refuse_none(reached)
            span.refuse_empty(due)
        span.refuse_short(found, due if span.end is None else span.end)
    assert cut is not None
    return cut.samples()


def number(track: Track, frame: Any) -> int | None:
    """Return the number of a frame's first sample, from the beginning of the file.

    FLV and Matroska round times to milliseconds; those of MPEG drift a little within a packet.
    Where the frame could be one of equally long frames without a gap since the first, it is taken
    for that one: exact, also after a seek. Of one that was cut short, at the beginning or after a
    seek, that is known by its end.
    """
    if frame.pts is None:
        return None
    own: int = frame.sample_rate
    told = track.time(frame.pts) * own
    tick = track.seconds(1)
    if abs(tick * own - 1) < 1e-9:
        return round(told)
    context = track.stream.codec_context
    first = track.time(track.stream.start_time or 0) * own - (context.delay or 0)
    whole = max(frame.samples, context.frame_size or 0)
    cuts = (0,) if frame.samples == whole else (0, frame.samples)
    grid = [first + round((told + cut - first) / whole) * whole - cut for cut in cuts]
    likely = min(grid, key=lambda place: abs(place - told))
    near = abs(likely - told) <= own * (tick + DRIFT)
    return round(likely if near else told)
