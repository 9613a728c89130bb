"""One channel of many, and what is lost by that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from equimodal.data.media.remarks import cancelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

LARGE = 16_384  # samples
LOUD = 8.0  # times full scale: floating-point samples beyond it are in the scale of integers
INTEGERS = (2.0**15, 2.0**23, 2.0**31)


class Mix:
    """The mean of the channels of frames, from -1 to 1.

    Args:
        scale: what floating-point samples of PCM are divided by.

    Attributes:
        peak: the largest of these, before that.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale
        self.peak = 0.0
        self._of_mean = 0.0
        self._of_channels = 0.0

    def __call__(self, frames: Sequence[Any]) -> NDArray[np.float32]:
        """Return the mean of the channels of frames of one kind, float32 (T,)."""
        import numpy as np
        from av.audio.frame import format_dtypes

        first = frames[0]
        channels = first.layout.nb_channels
        kind = np.dtype(format_dtypes[first.format.name])
        planar = first.format.is_planar
        # Not frame.to_ndarray(): from 8 channels on, PyAV 18 lists more planes than there are, and
        # reading them is a crash.
        many = channels if planar else 1
        whole = np.empty((many, sum(f.samples for f in frames) * channels // many), kind)
        at = 0
        for frame in frames:
            count = frame.samples * channels // many
            for row, plane in zip(whole, frame.planes[:many], strict=True):
                row[at : at + count] = np.frombuffer(plane, kind, count)
            at += count
        samples = whole if planar else whole.reshape(-1, channels).T
        return self._mean(samples)

    def _mean(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        import numpy as np

        kind = samples.dtype
        if kind == np.uint8:
            samples = (samples.astype(np.float32) - 128) / 128
        elif kind.kind == "i":
            samples = samples / np.float32(2 ** (8 * kind.itemsize - 1))
        elif self._scale != 1:
            samples = samples / kind.type(self._scale)
        else:
            self.peak = max(self.peak, float(np.abs(samples).max(initial=0.0)))
        if len(samples) == 1:
            return np.asarray(samples[0], np.float32)
        mean = np.asarray(samples.mean(axis=0), np.float32)
        self._of_mean += float(np.vdot(mean, mean))
        self._of_channels += sum(float(np.vdot(each, each)) for each in samples) / len(samples)
        return mean

    def scale(self) -> float:
        """Return what samples should have been divided by: the least scale that holds them."""
        if self.peak <= LOUD:
            return 1.0
        return next((scale for scale in INTEGERS if self.peak <= scale), 1.0)

    def remarks(self) -> list[str]:
        """Return what is odd about the channels."""
        return cancelled(self._of_mean, self._of_channels)


class Block:
    """Frames that follow each other, mixed together: what is done to each costs more than it does.

    Args:
        mix: makes one channel of them.
    """

    def __init__(self, mix: Mix) -> None:
        self._mix = mix
        self._frames: list[Any] = []
        self._kind: tuple[Any, ...] = ()
        self._at: int | None = None
        self._samples = 0

    @property
    def end(self) -> int:
        """The number of the sample after the last one."""
        return (self._at or 0) + self._samples

    @property
    def large(self) -> bool:
        """Whether it is worth mixing."""
        return self._samples >= LARGE

    def takes(self, frame: Any, at: int | None, gap: float) -> bool:
        """Whether a frame follows on those that are there, or none are."""
        if not self._frames:
            return True
        follows = at is None or at - self.end <= gap
        return follows and self._kind == _kind(frame)

    def add(self, frame: Any, at: int | None) -> None:
        """Add a frame whose first sample has a number, if that is known."""
        if not self._frames:
            self._at, self._kind = at, _kind(frame)
        self._frames.append(frame)
        self._samples += frame.samples

    def mixed(self) -> tuple[NDArray[np.float32], int | None]:
        """Return the samples of the frames, and the number of the first; none are left then."""
        mixed = self._mix(self._frames)
        at, self._at = self._at, None
        self._frames, self._samples = [], 0
        return mixed, at


def _kind(frame: Any) -> tuple[Any, ...]:
    return frame.format.name, frame.layout.name
