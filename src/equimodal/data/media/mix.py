"""One channel of many, and what is lost by that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from equimodal.data.media.remarks import cancelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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

    def __call__(self, frame: Any) -> NDArray[np.float32]:
        """Return the mean of the channels of a frame, float32 (T,)."""
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
        elif self._scale != 1:
            samples = samples / kind.type(self._scale)
        elif samples.size:
            self.peak = max(self.peak, float(np.abs(samples).max()))
        if channels == 1:
            return np.asarray(samples[0], np.float32)
        mean = np.asarray(samples.mean(axis=0), np.float32)
        self._of_mean += float(np.vdot(mean, mean))
        self._of_channels += float(np.square(samples, dtype=np.float32).sum()) / channels
        return mean

    def scale(self) -> float:
        """Return what samples should have been divided by: the least scale that holds them."""
        if self.peak <= LOUD:
            return 1.0
        return next((scale for scale in INTEGERS if self.peak <= scale), 1.0)

    def remarks(self) -> list[str]:
        """Return what is odd about the channels."""
        return cancelled(self._of_mean, self._of_channels)
