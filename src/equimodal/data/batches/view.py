"""How prepared clips look as the input of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from equimodal.errors import SetupError


@dataclass(frozen=True)
class View:
    """How prepared clips look as the input of a model.

    Args:
        seconds: of sound; longer sound is cut, shorter sound repeated until it fills them. None
            for the longest in the training split.
        spectrogram: "log-stft": log of the magnitude of the short-time Fourier transform;
            "log-mel": log of a mel spectrogram; "fbank": Kaldi's filter banks, in which windows
            are 25 ms and hops 10 ms whatever n_fft and hop say.
        n_fft: samples in a window of the Fourier transform.
        hop: samples from one window to the next.
        mels: bands of "log-mel" and "fbank".
        frames: of video in a sample: random ones in training, in order, from equal parts of the
            clip; the middle ones of those parts in evaluation.
        size: height and width of frames, in pixels.
        scale: least and largest share of a frame's area that a random crop of training keeps.
        flip: probability with which the frames of a clip are mirrored in training.
        words: of text, how many numbers count its words; see `batches.text`.

    Raises:
        SetupError: a number is out of its range.
    """

    seconds: float | None = None
    spectrogram: Literal["log-stft", "log-mel", "fbank"] = "log-stft"
    n_fft: int = 512
    hop: int = 353
    mels: int = 128
    frames: int = 1
    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    words: int = 4096

    def __post_init__(self) -> None:
        for name in ("n_fft", "hop", "mels", "frames", "size", "words"):
            if getattr(self, name) < 1:
                raise SetupError(f"{name}: expected 1 or more, found {getattr(self, name)}")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise SetupError(f"seconds: expected a number above 0, found {self.seconds}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise SetupError(f"scale: expected two shares of 0 to 1 in order, found {self.scale}")
        if not 0 <= self.flip <= 1:
            raise SetupError(f"flip: expected a probability, found {self.flip}")
