"""Sound as the bytes of a WAV file: 16 bit, mono."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from equimodal.data.media.refusal import Undecodable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# RIFF, size, WAVE; "fmt ", its size, PCM, channels, rate, bytes a second, bytes a sample, bits;
# "data", size.
HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def wav(pcm: NDArray[np.int16], rate: int) -> bytes:
    """Return a WAV file.

    Args:
        pcm: samples, int16 (T,).
        rate: of them, in Hz.

    Raises:
        ValueError: not int16 with one axis, or more than the 4 GB of the format.
    """
    if pcm.dtype != "int16" or pcm.ndim != 1:
        raise ValueError(f"expected int16 with one axis, found {pcm.dtype} of shape {pcm.shape}")
    content = pcm.astype("<i2", copy=False).tobytes()
    size = len(content)
    if size > 2**32 - HEADER.size:
        raise ValueError(f"a WAV file holds at most 4 GB, found {size / 1e9:.1f} GB")
    header = HEADER.pack(
        *(b"RIFF", HEADER.size - 8 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16),
        *(b"data", size),
    )
    return header + content


def pcm(wav: bytes) -> tuple[NDArray[np.int16], int]:
    """Return the samples of a WAV file, int16 (T,), and their rate in Hz.

    Chunks besides "fmt " and "data" are passed over.

    Raises:
        Undecodable: it is not 16-bit mono PCM, or is cut short.
    """
    import numpy as np

    if wav[:4] != b"RIFF" or wav[8:12] != b"WAVE":
        raise Undecodable("unreadable: not a WAV file")
    rate, at = None, 12
    while at + 8 <= len(wav):
        name, size = struct.unpack_from("<4sI", wav, at)
        at += 8
        if at + size > len(wav):
            raise Undecodable(f"truncated: {len(wav) - at} of {size} bytes")
        if name == b"fmt ":
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", wav, at)
            if (kind, channels, bits) != (1, 1, 16):
                found = f"format {kind}, {channels} channels, {bits} bit"
                raise Undecodable(f"unreadable: expected 16-bit mono PCM, found {found}")
        if name == b"data" and rate is not None:
            samples = np.frombuffer(wav, "<i2", size // 2, at)
            return samples.astype(np.int16), rate  # a copy: bytes cannot be written to
        at += size + size % 2
    raise Undecodable("truncated: no samples")
