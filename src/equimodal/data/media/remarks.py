"""What is odd about a clip that can be had: said, counted, and left to the user.

==============================================  =================================================
``silent``                                      no sample is louder than 3 of 32,768
``constant``                                    sound of one value that is not 0
``clipped: 12.3% at full scale``                more than 1% of the samples
``channels cancel: 38.2 dB lost``               the mean of the channels is 20 dB or more below
                                                them: they were recorded in opposite phase
``integer scale: ...``                          floating-point samples of up to 2^15, 2^23 or 2^31
                                                instead of 1: divided by that
``black``                                       no kept picture has a pixel above 32 of 255
``one colour``                                  no kept picture shows anything, but not in black
``sound: the default of 2 streams``             another stream could have been meant
``video: the default of 2 streams``             also
==============================================  =================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from equimodal.data.media.track import Track

QUIET = 3  # of 32,768
FULL = 32_767
CLIPPED = 0.01
DARK = 32  # of 255
FLAT = 6  # between the darkest and the brightest pixel: JPEG and coding leave some
EVERY = 4  # pixels that are looked at, in both directions
CANCELLED = 20.0  # dB


def several(track: Track) -> list[str]:
    """Return a remark if a file has more than one stream that could have been taken."""
    if not track.others:
        return []
    return [f"{track.what}: the default of {track.others + 1} streams"]


def heard(pcm: NDArray[np.int16]) -> list[str]:
    """Return what is odd about sound, int16 (T,)."""
    import numpy as np

    if not len(pcm):
        return []
    low, high = int(pcm.min()), int(pcm.max())
    if max(-low, high) <= QUIET:
        return ["silent"]
    if high - low <= QUIET:
        return ["constant"]
    if max(-low, high) < FULL:
        return []
    share = float(np.mean((pcm >= FULL) | (pcm <= -FULL)))
    return [f"clipped: {100 * share:.1f}% at full scale"] if share > CLIPPED else []


def cancelled(of_mean: float, of_channels: float) -> list[str]:
    """Return a remark if channels cancel.

    Args:
        of_mean: energy of the mean of the channels.
        of_channels: mean of their energies.

    >>> cancelled(1e-5, 1.0), cancelled(0.5, 1.0), cancelled(0.0, 0.0)
    (['channels cancel: 50.0 dB lost'], [], [])
    """
    if of_mean > of_channels * 10 ** (-CANCELLED / 10) or of_channels <= 0:
        return []
    lost = -10 * math.log10(max(of_mean / of_channels, 1e-10))
    return [f"channels cancel: {lost:.1f} dB lost"]


class Light:
    """Whether pictures show anything."""

    def __init__(self) -> None:
        self._pictures = 0
        self._brightest = 0
        self._range = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Look at a picture, (H, W, 3)."""
        some: Any = pixels[::EVERY, ::EVERY].reshape(-1, 3)
        low, high = some.min(axis=0), some.max(axis=0)
        self._pictures += 1
        self._brightest = max(self._brightest, int(high.max()))
        self._range = max(self._range, int((high.astype(int) - low).max()))

    def remarks(self) -> list[str]:
        """Return what is odd about all of them."""
        if not self._pictures or (self._brightest > DARK and self._range > FLAT):
            return []
        return ["black" if self._brightest <= DARK else "one colour"]
