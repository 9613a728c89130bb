"""Mel filters, as librosa and as Kaldi define them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz, 15 mel, then 27 mel per factor of 6.4.
BREAK, PER_MEL, STEP = 1000.0, 200 / 3, math.log(6.4) / 27


def slaney(rate: int, n_fft: int, mels: int) -> Tensor:
    """Return triangles on Slaney's mel scale, each of equal area: librosa's default.

    They reach from 0 Hz to half the rate.

    Args:
        rate: of the sound, in Hz.
        n_fft: samples in a window of the Fourier transform.
        mels: how many.

    Returns:
        Weights of the frequencies, float64, shape ``(mels, n_fft // 2 + 1)``.
    """
    top = torch.tensor([rate / 2], dtype=torch.float64)
    edges = _slaney_to_hz(torch.linspace(0, 1, mels + 2, dtype=torch.float64) * _hz_to_slaney(top))
    frequencies = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    return _triangles(edges, frequencies) * (2 / (edges[2:] - edges[:-2]))[:, None]


def kaldi(rate: int, n_fft: int, mels: int, low: float) -> Tensor:
    """Return triangles on the mel scale of HTK, straight in mel and of height 1: Kaldi's.

    They reach from `low` to half the rate.

    Args:
        rate: of the sound, in Hz.
        n_fft: samples in a window of the Fourier transform.
        mels: how many.
        low: lowest frequency, in Hz.

    Returns:
        Weights of the frequencies, float64, shape ``(mels, n_fft // 2 + 1)``.
    """
    frequencies = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    ends = _hz_to_htk(torch.tensor([low, rate / 2], dtype=torch.float64))
    edges = torch.linspace(0, 1, mels + 2, dtype=torch.float64) * (ends[1] - ends[0]) + ends[0]
    weights = _triangles(edges, _hz_to_htk(frequencies))
    weights[:, -1] = 0  # Kaldi leaves out half the rate itself
    return weights


def _triangles(edges: Tensor, places: Tensor) -> Tensor:
    """Return for three neighbouring edges each the triangle over them, at these places."""
    low, middle, high = (edges[i : len(edges) - 2 + i, None] for i in range(3))
    rising, falling = (places - low) / (middle - low), (high - places) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0)


def _hz_to_slaney(hz: Tensor) -> Tensor:
    above = BREAK / PER_MEL + (hz.clamp(min=BREAK) / BREAK).log() / STEP
    return torch.where(hz < BREAK, hz / PER_MEL, above)


def _slaney_to_hz(mel: Tensor) -> Tensor:
    above = BREAK * ((mel - BREAK / PER_MEL) * STEP).exp()
    return torch.where(mel < BREAK / PER_MEL, mel * PER_MEL, above)


def _hz_to_htk(hz: Tensor) -> Tensor:
    return 1127 * (1 + hz / 700).log()
