"""WAV files in memory."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from equimodal.data import media


@given(
    arrays.arrays(np.int16, st.integers(0, 300)),
    st.sampled_from([8_000, 16_000, 22_050, 44_100, 96_000]),
)
def test_samples_come_back_and_python_reads_the_same(pcm: np.ndarray, rate: int) -> None:
    content = media.wav(pcm, rate)
    assert len(content) == 44 + 2 * len(pcm)
    found, found_rate = media.pcm(content)
    np.testing.assert_array_equal(found, pcm)
    assert (found.dtype, found_rate) == (np.int16, rate)
    assert found.flags.writeable, "torch warns of arrays that are not"
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        assert file.readframes(len(pcm)) == pcm.astype("<i2").tobytes()


def test_other_chunks_are_passed_over() -> None:
    content = media.wav(np.arange(5, dtype=np.int16), 8000)
    note = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # padded to an even length
    found, _ = media.pcm(content[:36] + note + content[36:])
    assert found.tolist() == [0, 1, 2, 3, 4]


def other(channels: int, width: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(width)
        written.setframerate(8000)
        written.writeframes(bytes(24))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unreadable: not a WAV file"),
        (b"RIFX" + bytes(40), "unreadable: not a WAV file"),
        (other(2, 2), "unreadable: expected 16-bit mono PCM, found format 1, 2 channels, 16 bit"),
        (other(1, 1), "unreadable: expected 16-bit mono PCM, found format 1, 1 channels, 8 bit"),
        (media.wav(np.zeros(9, np.int16), 8000)[:-4], "truncated: 14 of 18 bytes"),
        (media.wav(np.zeros(9, np.int16), 8000)[:36], "truncated: no samples"),
        (media.wav(np.zeros(9, np.int16), 8000)[:30], "truncated: 10 of 16 bytes"),
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(media.Undecodable) as caught:
        media.pcm(content)
    assert caught.value.reason == reason


@pytest.mark.parametrize("pcm", [np.zeros(3, np.float32), np.zeros((2, 3), np.int16)])
def test_other_arrays_are_refused(pcm: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected int16 with one axis, found"):
        media.wav(pcm, 8000)
