"""Spectrograms of a batch of sound, on its device.

Windows and filters are made once for each device, in full precision: a model that holds one of
these modules may be cast to half precision without harm to them, and they hold no state.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from equimodal.data.batches import mel
from equimodal.data.batches.view import View
from equimodal.errors import SetupError

FLOOR = 1e-7  # added before the logarithm
WINDOW_MS, HOP_MS = 25, 10  # of Kaldi
PREEMPHASIS = 0.97
LOW = 20.0  # Hz, below which Kaldi hears nothing
Window = Literal["hanning", "povey"]


class LogSTFT(nn.Module):
    """The log of the magnitude of the short-time Fourier transform: log(abs(STFT) + 1e-7).

    The input of OGM-GE on CREMA-D (Peng et al., CVPR 2022). The window is a periodic Hann window
    as long as the transform; windows are centred, and zeros stand before and after the sound, as
    in librosa 0.10 and later.

    Args:
        n_fft: samples in a window.
        hop: samples from one window to the next.

    >>> LogSTFT(n_fft=512, hop=353)(torch.zeros(2, 66150)).shape
    torch.Size([2, 257, 188])
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop = hop

    def forward(self, sound: Tensor) -> Tensor:
        """Return float32 of shape ``(B, n_fft // 2 + 1, 1 + T // hop)``.

        Args:
            sound: float32 of -1 to 1, shape ``(B, T)``.
        """
        return magnitude(sound, self.n_fft, self.hop).add_(FLOOR).log_()


class LogMel(nn.Module):
    """The log of a mel spectrogram: log(mel + 1e-7), of power, as librosa's defaults.

    Args:
        rate: of the sound, in Hz.
        n_fft: samples in a window.
        hop: samples from one window to the next.
        mels: bands, from 0 Hz to half the rate.

    >>> LogMel(16000, n_fft=400, hop=160, mels=64)(torch.zeros(2, 16000)).shape
    torch.Size([2, 64, 101])
    """

    def __init__(self, rate: int, n_fft: int, hop: int, mels: int) -> None:
        super().__init__()
        self.rate = rate
        self.n_fft = n_fft
        self.hop = hop
        self.mels = mels

    def forward(self, sound: Tensor) -> Tensor:
        """Return float32 of shape ``(B, mels, 1 + T // hop)``.

        Args:
            sound: float32 of -1 to 1, shape ``(B, T)``.
        """
        power = magnitude(sound, self.n_fft, self.hop).square_()
        return (_slaney(self.rate, self.n_fft, self.mels, sound.device) @ power + FLOOR).log()


class FilterBanks(nn.Module):
    """Kaldi's log filter banks, without dither: the input of AST and CAV-MAE.

    Windows of 25 ms every 10 ms that lie in the sound as a whole; from each its mean is taken,
    then 0.97 of the sample before from every sample; power; mel of HTK from 20 Hz to half the
    rate; log, of 1.2e-7 at least.

    Args:
        rate: of the sound, in Hz.
        mels: bands.
        window: "hanning", or "povey", which is its power of 0.85: the default of Kaldi itself.

    Raises:
        SetupError: the window is unknown.

    >>> FilterBanks(16000, mels=128)(torch.zeros(2, 16000)).shape
    torch.Size([2, 128, 98])
    """

    def __init__(self, rate: int, mels: int, window: Window = "hanning") -> None:
        super().__init__()
        if window not in ("hanning", "povey"):
            raise SetupError(f"window: expected 'hanning' or 'povey', found {window!r}")
        self.rate = rate
        self.mels = mels
        self.window: Window = window
        self.length = rate * WINDOW_MS // 1000
        self.hop = rate * HOP_MS // 1000
        self.n_fft = 1 << (self.length - 1).bit_length()

    def forward(self, sound: Tensor) -> Tensor:
        """Return float32 of shape ``(B, mels, 1 + (T - window) // hop)``.

        Args:
            sound: float32 of -1 to 1, shape ``(B, T)``.

        Raises:
            SetupError: the sound is shorter than a window.
        """
        if sound.shape[1] < self.length:
            raise SetupError(
                f"fbank: expected sound of {WINDOW_MS} ms or more, {self.length} samples, found "
                f"{sound.shape[1]}: set seconds"
            )
        frames = sound.unfold(1, self.length, self.hop)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - PREEMPHASIS * before) * _kaldi_window(
            self.length, self.window, sound.device
        )
        power = torch.fft.rfft(frames, self.n_fft).abs().square()
        filters = _kaldi(self.rate, self.n_fft, self.mels, sound.device)
        least = torch.finfo(torch.float32).eps
        banks: Tensor = filters @ power.transpose(1, 2)
        return banks.clamp(min=least).log()


def spectrogram(view: View, rate: int) -> nn.Module:
    """Return the module for the spectrogram of a view.

    Args:
        view: how samples look.
        rate: of the sound, in Hz.

    Raises:
        SetupError: the view names no spectrogram that there is.
    """
    if view.spectrogram == "log-stft":
        return LogSTFT(view.n_fft, view.hop)
    if view.spectrogram == "log-mel":
        return LogMel(rate, view.n_fft, view.hop, view.mels)
    if view.spectrogram == "fbank":
        return FilterBanks(rate, view.mels)
    raise SetupError(
        f"spectrogram: expected 'log-stft', 'log-mel' or 'fbank', found {view.spectrogram!r}"
    )


def magnitude(sound: Tensor, n_fft: int, hop: int) -> Tensor:
    """Return the magnitude of the short-time Fourier transform, ``(B, F, T)``; see `LogSTFT`."""
    # In float32 the noise of the transform is larger than what quiet bands hold, which the log
    # shows. Apple's devices have nothing else.
    precise = torch.float32 if sound.device.type == "mps" else torch.float64
    window = _hann(n_fft, sound.device, precise)
    shape = len(sound), n_fft // 2 + 1, 1 + sound.shape[1] // hop
    made = torch.empty(shape, device=sound.device)
    # Sound by sound the intermediate results stay in the cache of a CPU: three times as fast.
    size = 1 if sound.device.type == "cpu" else len(sound)
    for start in range(0, len(sound), size):
        transformed: Tensor = torch.stft(
            sound[start : start + size].to(precise),
            n_fft,
            hop,
            window=window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        # Not abs(), which minds numbers whose square overflows: sound of -1 to 1 has none.
        parts = torch.view_as_real(transformed).to(torch.float32).square_()
        made[start : start + size] = (parts[..., 0] + parts[..., 1]).sqrt_()
    return made


@cache
@torch.inference_mode(False)  # what is kept must serve outside of it too
def _hann(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.hann_window(length, dtype=torch.float64).to(device, dtype)


@cache
@torch.inference_mode(False)
def _kaldi_window(length: int, window: Window, device: torch.device) -> Tensor:
    hann = torch.hann_window(length, periodic=False, dtype=torch.float64)
    return (hann**0.85 if window == "povey" else hann).to(device, torch.float32)


@cache
@torch.inference_mode(False)
def _slaney(rate: int, n_fft: int, mels: int, device: torch.device) -> Tensor:
    return mel.slaney(rate, n_fft, mels).to(device, torch.float32)


@cache
@torch.inference_mode(False)
def _kaldi(rate: int, n_fft: int, mels: int, device: torch.device) -> Tensor:
    return mel.kaldi(rate, n_fft, mels, LOW).to(device, torch.float32)
