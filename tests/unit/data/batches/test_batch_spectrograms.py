"""Spectrograms against librosa's, and Kaldi's: on noise, on silence and on words."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import kaldi_native_fbank
import librosa
import numpy as np
import pytest
import torch

import equimodal as eq
from equimodal.data.batches import mel
from equimodal.data.batches.spectrogram import FilterBanks, LogMel, LogSTFT, spectrogram
from equimodal.data.batches.view import View

DATA = Path(os.environ.get("EQUIMODAL_DATA", Path(__file__).parents[5] / "shared" / "data"))
WORDS = DATA / "raw" / "fsdd" / "recordings"


def noise(rate: int, seconds: float) -> np.ndarray:
    """From loud to soft, then silence: the log shows errors where little is heard."""
    rng = np.random.default_rng(0)
    sound = rng.normal(size=int(rate * seconds)) * np.logspace(0, -6, int(rate * seconds))
    sound[-len(sound) // 4 :] = 0
    return sound.astype(np.float32)


def word(name: str) -> tuple[np.ndarray, int]:
    path = WORDS / name
    if not path.exists():
        pytest.skip(f"{path} is not here: set EQUIMODAL_DATA to the folder that holds it")
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return pcm.astype(np.float32) / 2**15, file.getframerate()


@pytest.fixture(params=["noise", "3_theo_1.wav", "7_jackson_30.wav"])
def sound(request: pytest.FixtureRequest) -> tuple[np.ndarray, int]:
    return (noise(22_050, 1.0), 22_050) if request.param == "noise" else word(request.param)


SETTINGS = [(512, 353), (256, 128), (400, 160)]


@pytest.mark.parametrize(("n_fft", "hop"), SETTINGS)
def test_stft_as_librosa(sound: tuple[np.ndarray, int], n_fft: int, hop: int) -> None:
    samples, _ = sound
    expected = np.log(np.abs(librosa.stft(samples, n_fft=n_fft, hop_length=hop)) + 1e-7)
    found = LogSTFT(n_fft, hop)(torch.from_numpy(samples)[None])[0]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("n_fft", "hop"), SETTINGS)
@pytest.mark.parametrize("mels", [40, 64])
def test_mel_as_librosa(sound: tuple[np.ndarray, int], n_fft: int, hop: int, mels: int) -> None:
    samples, rate = sound
    expected = librosa.feature.melspectrogram(
        y=samples, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=mels
    )
    found = LogMel(rate, n_fft, hop, mels)(torch.from_numpy(samples)[None])[0]
    np.testing.assert_allclose(found, np.log(expected + 1e-7), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
def test_mel_filters_as_librosa(rate: int) -> None:
    found = mel.slaney(rate, 512, 40)
    expected = librosa.filters.mel(sr=rate, n_fft=512, n_mels=40)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("window", ["hanning", "povey"])
@pytest.mark.parametrize("mels", [23, 64])
def test_filter_banks_as_kaldi(sound: tuple[np.ndarray, int], window: str, mels: int) -> None:
    samples, rate = sound
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = rate
    options.frame_opts.window_type = window
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = mels
    theirs = kaldi_native_fbank.OnlineFbank(options)
    theirs.accept_waveform(rate, samples.tolist())
    theirs.input_finished()
    expected = np.stack([theirs.get_frame(i) for i in range(theirs.num_frames_ready)], axis=1)
    found = FilterBanks(rate, mels, window)(torch.from_numpy(samples)[None])[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_crema_d_has_the_shape_of_the_papers() -> None:
    module = spectrogram(View(seconds=3, n_fft=512, hop=353), 22_050)
    assert module(torch.zeros(1, 3 * 22_050)).shape == (1, 257, 188)


@pytest.mark.parametrize("name", ["log-stft", "log-mel", "fbank"])
def test_a_batch_is_its_sounds_one_by_one(name: str) -> None:
    module = spectrogram(View(spectrogram=name, n_fft=256, hop=100, mels=20), 8000)  # type: ignore[arg-type]
    sounds = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([module(sound[None]) for sound in sounds])
    torch.testing.assert_close(module(sounds), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["log-stft", "log-mel", "fbank"])
def test_they_hold_no_state_and_survive_casts_and_inference_mode(name: str) -> None:
    module = spectrogram(View(spectrogram=name, n_fft=218, hop=100, mels=21), 8000)  # type: ignore[arg-type]
    sounds = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = module(sounds)  # the first to need these windows
    assert module.state_dict() == {}
    torch.testing.assert_close(module.bfloat16()(sounds), expected, rtol=0, atol=0)
    sounds.requires_grad_()
    module(sounds).sum().backward()
    assert sounds.grad is not None
    assert sounds.grad.isfinite().all()


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(eq.SetupError, match="expected 'log-stft', 'log-mel' or 'fbank'"):
        spectrogram(View(spectrogram="cqt"), 8000)  # type: ignore[arg-type]
    with pytest.raises(eq.SetupError, match="window: expected 'hanning' or 'povey', found 'hann'"):
        FilterBanks(8000, 20, "hann")  # type: ignore[arg-type]
    with pytest.raises(eq.SetupError, match="200 samples, found 199: set seconds"):
        FilterBanks(8000, 20)(torch.zeros(1, 199))
