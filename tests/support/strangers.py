"""Models that users write, small: two encoders, and a fusion that `forward` does by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BATCH, CLASSES, WIDTH = 6, 3, 8


class Stranger(nn.Module):
    """Two encoders and a classifier of both; each model below differs in `features` or `fuse`."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.video = nn.Linear(4, WIDTH), nn.Linear(5, WIDTH)
        self.out = nn.Linear(2 * WIDTH, CLASSES)

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        return {"audio": self.audio(a), "video": self.video(v)}

    def fuse(self, z: dict[str, Tensor]) -> Any:
        return self.out(torch.cat([z["audio"], z["video"]], dim=1).relu())

    def forward(self, a: Tensor, v: Tensor) -> Any:
        return self.fuse(self.features(a, v))

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a linear classifier of a modality is given."""
        return z


class LSTMs(Stranger):
    """Pairs of tuples, of which the last state is used."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = nn.LSTM(4, WIDTH, batch_first=True)
        self.video = nn.LSTM(5, WIDTH, batch_first=True)

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        return {n: getattr(self, n)(x)[1][0] for n, x in (("audio", a), ("video", v))}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        return super().fuse({name: state[-1] for name, state in z.items()})

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: state[-1] for name, state in z.items()}


class SequencesFirst(Stranger):
    """Like MulT: ``(T, B, D)`` into attention across modalities, before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.across = nn.MultiheadAttention(WIDTH, 2)

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        a, v = z["audio"].transpose(0, 1), z["video"].transpose(0, 1)
        both = [self.across(a, v, v)[0] + a, self.across(v, a, a)[0] + v]
        return super().fuse({n: x.mean(0) for n, x in zip(z, both, strict=True)})

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        z = super().features(a.transpose(0, 1), v.transpose(0, 1))
        return self.fuse({name: sequence.transpose(0, 1) for name, sequence in z.items()})

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: sequence.mean(1) for name, sequence in z.items()}


class TwoImages(Stranger):
    """Like ViLT on pairs: text and image go through one layer, once for each of two images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.0, batch_first=True)

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        text = [self.audio(a) for _ in range(2)]
        image = [self.video(v[:, :3]), self.video(v[:, 3:])]
        return {"audio": torch.cat(text, 1), "video": torch.cat(image, 1)}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        pairs = [
            torch.cat(both, 1) for both in zip(*(x.chunk(2, 1) for x in z.values()), strict=True)
        ]
        return self.out(torch.cat([self.layer(tokens)[:, 0] for tokens in pairs], dim=1))

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: sequence.mean(1) for name, sequence in z.items()}


class Auxiliary(Stranger):
    """In training alone an auxiliary output comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(WIDTH, CLASSES)

    def fuse(self, z: dict[str, Tensor]) -> Any:
        logits = super().fuse(z)
        extra = self.extra(z["audio"])
        return (extra, logits, z["audio"]) if self.training else (logits, extra)
