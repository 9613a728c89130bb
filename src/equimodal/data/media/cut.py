"""A clip of sound, put together from decoded frames at another rate."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, gcd
from typing import TYPE_CHECKING, Any

from equimodal.data.media.span import MOST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Lost = Callable[[float, float], float]
GAP = 0.05  # seconds by which a time stamp may be late without silence before it
MARGIN = 0.05  # seconds around a clip that the filter of the resampler is given


class Cut:
    """A clip of sound, put together from decoded frames in order.

    The resampler is fed from a sample whose moment is one of a sample at the new rate too, so that
    a clip is the same wherever decoding began.

    Args:
        own: rate of the frames.
        rate: of the clip.
        start: of the clip, in seconds.
        end: of the clip, in seconds; None for the end of the frames.
        lost: how many seconds of a stretch, from and to a moment, were lost to damage; what is
            silent between frames otherwise is a pause. None: all of them were.

    Attributes:
        own: rate of the frames.
    """

    def __init__(
        self, own: int, rate: int, start: float, end: float | None, lost: Lost | None = None
    ) -> None:
        import av

        common = gcd(own, rate)
        cells = max(0, int(start * common) - ceil(MARGIN * common))
        self.own = own
        self._lost = lost or (lambda begin, end: end - begin)
        self._rate = rate
        self._begin = cells * (own // common)
        self._skip = round(start * rate) - cells * (rate // common)
        self._length = None if end is None else round(end * rate) - round(start * rate)
        far = float("inf")
        self._stop = far if end is None else ceil((end + MARGIN) * own)
        self._clip = round(start * own), far if end is None else round(end * own)
        self._position: int | None = None  # number of the next sample, from the file's beginning
        self._heard = 0.0
        # Beyond what any clip may miss, silence is counted but not kept: a damaged time stamp can
        # ask for years.
        self._silence = round((MOST + 2 * MARGIN) * own)
        self._resampler: Any = None
        if own != rate:
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
        self._parts: list[NDArray[np.int16]] = []

    @property
    def full(self) -> bool:
        """Whether nothing is missing any more."""
        return self._position is not None and self._position >= self._stop

    def enough(self, end: int) -> bool:
        """Whether nothing is missing any more with sound up to a sample, by its number."""
        return end >= self._stop

    @property
    def reached(self) -> float:
        """Where the last frame ended, in seconds."""
        return (self._position or 0) / self.own

    @property
    def heard(self) -> float:
        """The seconds of the clip that frames hold, or pauses between them."""
        return self._heard / self.own

    def add(self, samples: NDArray[np.float32], at: int | None) -> None:
        """Append a frame.

        Args:
            samples: of it, from -1 to 1.
            at: its first sample's number; None if not known. Sound never goes back: with a number
                that is too small it follows on what there is.
        """
        import numpy as np

        if not len(samples):
            return
        if self._position is None:
            self._position = min(at or 0, self._begin)
            late = (at or 0) - self._position
        else:
            late = 0 if at is None else at - self._position
            late = late if late > GAP * self.own else 0
        if late > 0:
            silent = max(
                0, min(self._position + late, self._stop) - max(self._position, self._begin)
            )
            self._silence -= int(silent)
            if self._silence >= 0:
                self._feed(np.zeros(int(silent), np.float32))
                self._pause(self._position, self._position + late)
            self._position += late
        after = self._position + len(samples)
        if self._silence >= 0:
            kept = slice(
                max(0, self._begin - self._position),
                int(max(0, min(after, self._stop) - self._position)),
            )
            self._feed(samples[kept])
        begin, end = self._clip
        self._heard += int(max(0, min(after, end) - max(self._position, begin)))
        self._position = after

    def _pause(self, begin: int, end: int) -> None:
        first, last = max(begin, self._clip[0]), min(end, self._clip[1])
        if last > first:
            lost = self._lost(first / self.own, last / self.own)
            self._heard += last - first - lost * self.own

    def samples(self) -> NDArray[np.int16]:
        """Return the clip, int16 (T,); nothing can be added any more."""
        import numpy as np

        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
        whole = np.concatenate([np.empty(0, np.int16), *self._parts])
        there = round(((self._position or 0) - self._begin) * self._rate / self.own)
        wanted = there if self._length is None else min(there, self._skip + self._length)
        return whole[self._skip : max(self._skip, wanted)]

    def _feed(self, samples: NDArray[np.float32]) -> None:
        import av

        if not len(samples):
            return
        if self._resampler is None:
            self._parts.append(pcm16(samples))
            return
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = self.own
        self._keep(self._resampler.resample(frame))

    def _keep(self, frames: Any) -> None:
        self._parts += [pcm16(frame.to_ndarray()[0]) for frame in frames]


def pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return samples from -1 to 1 as 16-bit integers; what is no number is silent."""
    import numpy as np

    finite = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    return np.rint(finite * 32768).clip(-32768, 32767).astype(np.int16)
