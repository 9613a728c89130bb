"""Sound of a file at another rate, cut to the sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from equimodal.data.media.cut import Cut
from equimodal.data.media.span import Span
from equimodal.data.media.track import Track
from equimodal.system.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRIFT = 1e-4  # seconds by which time stamps are off besides being rounded to their unit


def sound(path: Path, start: float, end: float | None, rate: int) -> NDArray[np.int16]:
    """Return sound as int16 (T,): the mean of all channels, resampled.

    Sample k of a file is what sounds at ``k / rate`` seconds; a clip holds those from
    ``round(start * rate)`` to before ``round(end * rate)``, or fewer if the file ends before.
    Stretches of more than 50 ms for which the file has no sound, by its time stamps, are silent.
    Values beyond 16 bit are clipped.

    Args:
        path: of a file with sound.
        start: where the clip begins, in seconds from the moment at which the first of the file's
            streams begins.
        end: where it ends; None for the end of the sound.
        rate: samples a second to return.

    Raises:
        Undecodable: see `equimodal.data.media`.
    """
    require("data", "av", "numpy")
    span = Span(start, end)
    cut: Cut | None = None
    with Track(path, "audio") as track:
        for frame in track.frames(start):
            if not frame.samples:
                continue
            cut = cut or Cut(frame.sample_rate, rate, start, end)
            if frame.sample_rate != cut.own:  # a damaged header: streams keep their rate
                continue
            cut.add(mono(frame), number(track, frame))
            if cut.full:
                break
        heard, reached = (0.0, 0.0) if cut is None else (cut.heard, cut.reached)
        if heard <= 0:
            track.refuse_none(reached)
            span.refuse_empty(max(reached, track.stated or 0.0))
        span.refuse_short(heard, max(reached, track.stated or 0.0) if end is None else end)
    assert cut is not None
    return cut.samples()


def number(track: Track, frame: Any) -> int | None:
    """Return the number of a frame's first sample, from the beginning of the file.

    FLV and Matroska round times to milliseconds; those of MPEG drift a little within a packet.
    Where the frame could be one of equally long frames without a gap since the first, it is taken
    for that one: exact, also after a seek.
    """
    if frame.pts is None:
        return None
    own: int = frame.sample_rate
    told = track.time(frame.pts) * own
    tick = track.seconds(1)
    if tick * own == 1:
        return round(told)
    first = track.time(track.stream.start_time or 0) * own
    likely = first + round((told - first) / frame.samples) * frame.samples
    near = abs(likely - told) <= own * (tick + DRIFT)
    return round(likely if near else told)


def mono(frame: Any) -> NDArray[np.float32]:
    """Return the mean of the channels of a frame, from -1 to 1, float32 (T,)."""
    import numpy as np
    from av.audio.frame import format_dtypes

    channels = frame.layout.nb_channels
    kind = np.dtype(format_dtypes[frame.format.name])
    # Not frame.to_ndarray(): from 8 channels on, PyAV 18 lists more planes than there are, and
    # reading them is a crash.
    planes = frame.planes[: channels if frame.format.is_planar else 1]
    count = frame.samples * channels // len(planes)
    samples = np.stack([np.frombuffer(plane, kind, count) for plane in planes])
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if kind == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif kind.kind == "i":
        samples = samples / np.float32(2 ** (8 * kind.itemsize - 1))
    return np.asarray(samples.mean(axis=0), np.float32)
