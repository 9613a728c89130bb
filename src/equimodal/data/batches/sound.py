"""Sound of one length in every sample."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pcm = NDArray[np.int16]


def fit(pcm: Pcm, length: int, start: int = 0) -> Pcm:
    """Return sound of this many samples: longer sound is cut, shorter sound repeated.

    Args:
        pcm: int16, shape ``(T,)``, not empty.
        length: how many.
        start: where to cut; 0 for sound that is not longer.

    >>> import numpy as np
    >>> fit(np.arange(3, dtype=np.int16), 7).tolist()
    [0, 1, 2, 0, 1, 2, 0]
    >>> fit(np.arange(9, dtype=np.int16), 3, start=4).tolist()
    [4, 5, 6]
    """
    import numpy as np

    kept = pcm[start : start + length]
    return kept.copy() if len(kept) == length else np.resize(kept, length)


def random_start(samples: int, length: int, draw: random.Random) -> int:
    """Return where to cut `length` out of so many samples; anywhere alike, 0 if there are fewer."""
    return int(draw.random() * max(samples - length + 1, 1))
