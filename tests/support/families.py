"""Families of public multimodal models, rebuilt small from their descriptions.

Each has `features`, `fuse` and `vectors`, out of which a hand-written loop is made, and `forward`,
which is all that a balancer sees.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from support.strangers import BATCH, CLASSES, WIDTH, LSTMs, SequencesFirst, Stranger, TwoImages

TOKENS, WORDS = 5, 7


class Family(Stranger):
    """What a hand-written loop has to know of a model, beside its parts.

    Attributes:
        lengths: of the sequences that it takes; none for vectors.
    """

    lengths: tuple[int, ...] = ()

    def encoders(self) -> dict[str, Any]:
        return {"audio": self.audio, "video": self.video}

    def head(self) -> nn.Module | None:
        return None

    def settings(self) -> dict[str, Any]:
        return {}

    def logits(self, output: Any) -> Tensor:
        return output  # type: ignore[no-any-return]

    def own(self, output: Any, target: Tensor) -> Tensor | float:
        """The user's own losses beside the one of the logits."""
        return 0.0

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every sample, shape ``(B,)``."""
        losses = F.cross_entropy(logits, target, reduction="none")
        return losses.flatten(1).mean(1) if losses.ndim > 1 else losses

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.each(logits, target).mean()

    def batch(self, seed: int) -> tuple[list[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        target = torch.randint(CLASSES, (BATCH,), generator=generator)
        inputs = []
        for index, width in enumerate((4, 5)):
            shape = (BATCH, *self.lengths[index : index + 1], width)
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            inputs.append(x + (2 - index) * (target - 1).view(-1, *[1] * (x.ndim - 1)))
        return inputs, target


class Headed(Family):
    """The fusion is a module of its own, which takes both features."""

    def head(self) -> nn.Module:
        return self.out

    def fuse(self, z: dict[str, Tensor]) -> Any:
        return self.out(z["audio"], z["video"])


class GatedUnit(nn.Module):
    """A gated multimodal unit: tanh of each, weighted by a gate of both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate, self.out = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        gate = self.gate(torch.cat([a, v], dim=1)).sigmoid()
        hidden = gate * self.first(a).tanh() + (1 - gate) * self.second(v).tanh()
        return self.out(hidden)  # type: ignore[no-any-return]


class Gated(Headed):
    def __init__(self) -> None:
        super().__init__()
        self.out: Any = GatedUnit()


class FiLMUnit(nn.Module):
    """The video's feature, scaled and shifted as the audio's says, with biases everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.out((self.scale(a) * v + self.shift(a)).relu())  # type: ignore[no-any-return]


class FiLM(Headed):
    def __init__(self) -> None:
        super().__init__()
        self.out: Any = FiLMUnit()


class Outer(nn.Module):
    """Tensor fusion: the outer product of both features, each with a one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear((WIDTH + 1) ** 2, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        a, v = (torch.cat([f, f.new_ones(len(f), 1)], dim=1) for f in (a, v))
        return self.out(torch.einsum("bi,bj->bij", a, v).flatten(1))  # type: ignore[no-any-return]


class TensorFusion(Headed):
    def __init__(self) -> None:
        super().__init__()
        self.out: Any = Outer()


class LowRank(nn.Module):
    """The same, its weight a sum of a few products of one factor per modality."""

    def __init__(self, rank: int = 4) -> None:
        super().__init__()
        factors = [torch.randn(rank, WIDTH + 1, CLASSES) / 3 for _ in range(2)]
        self.first, self.second = (nn.Parameter(factor) for factor in factors)
        self.weights, self.bias = (
            nn.Parameter(torch.randn(1, rank)),
            nn.Parameter(torch.zeros(CLASSES)),
        )

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        a, v = (torch.cat([f.new_ones(len(f), 1), f], dim=1) for f in (a, v))
        product = (a @ self.first) * (v @ self.second)  # of shape (rank, B, classes)
        return (self.weights @ product.permute(1, 0, 2)).squeeze(1) + self.bias


class LowRankFusion(Headed):
    def __init__(self) -> None:
        super().__init__()
        self.out: Any = LowRank()


class CrossModal(SequencesFirst, Family):
    lengths = (5, BATCH)  # one of them as long as the batch is large


class SelfSupervised(Family):
    """Unimodal classifiers of the user's own, whose losses are added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)

    def fuse(self, z: dict[str, Tensor]) -> Any:
        return {
            "M": super().fuse(z),
            "A": self.first(z["audio"].relu()),
            "V": self.second(z["video"].relu()),
        }

    def logits(self, output: Any) -> Tensor:
        return output["M"]  # type: ignore[no-any-return]

    def own(self, output: Any, target: Tensor) -> Tensor:
        return F.cross_entropy(output["A"], target) + 0.5 * F.cross_entropy(output["V"], target)


class Segmentation(Family):
    """Two kinds of picture; in training alone an auxiliary classifier beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.video = (nn.Conv2d(c, WIDTH, 3, 2, 1) for c in (1, 3))
        self.out, self.extra = nn.Conv2d(2 * WIDTH, CLASSES, 3, 1, 1), nn.Conv2d(WIDTH, CLASSES, 1)

    def fuse(self, z: dict[str, Tensor]) -> Any:
        both = self.out(torch.cat([z["audio"], z["video"]], dim=1).relu())
        found = {"out": F.interpolate(both, scale_factor=2, mode="bilinear")}
        if self.training:
            extra = F.interpolate(self.extra(z["video"].relu()), scale_factor=2, mode="bilinear")
            found = {"aux": extra, **found}
        return found

    def logits(self, output: Any) -> Tensor:
        return output["out"]  # type: ignore[no-any-return]

    def own(self, output: Any, target: Tensor) -> Tensor:
        return 0.4 * F.cross_entropy(output["aux"], target)

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: maps.mean((2, 3)) for name, maps in z.items()}

    def batch(self, seed: int) -> tuple[list[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        target = torch.randint(CLASSES, (BATCH, 4, 4), generator=generator)
        inputs = [torch.randn(BATCH, c, 4, 4, generator=generator).double() for c in (1, 3)]
        inputs[0] = inputs[0] + 2 * (target[:, None] - 1)
        return inputs, target


class Recurrent(LSTMs, Family):
    lengths = (5, 7)

    def settings(self) -> dict[str, Any]:
        return {"features": lambda audio, video: {"audio": audio[1][0], "video": video[1][0]}}


class ImagePairs(TwoImages, Family):
    lengths = (2, 6)


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank one beside it, which starts at zero."""

    def __init__(self, width: int, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * self.up(self.down(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """One causal block with adapters on queries and values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.key = Adapted(WIDTH), Adapted(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)
        for part in (self.key, self.norm, self.head):
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        attended = F.scaled_dot_product_attention(
            self.query(h), self.key(h), self.value(h), is_causal=True
        )
        return self.head(x + attended)  # type: ignore[no-any-return]


class VisionLanguage(Family):
    """A frozen vision tower, a projector, and a decoder with adapters; prompts do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.video, self.projector = nn.Linear(5, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.video.requires_grad_(False)
        self.audio, self.out = nn.Embedding(WORDS, WIDTH), Decoder()

    def encoders(self) -> dict[str, Any]:
        return {"audio": self.audio, "video": [self.video, self.projector]}

    def settings(self) -> dict[str, Any]:
        return {"criterion": eq.TokenLoss()}

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            patches = self.video(v).tanh()
        return {"audio": self.audio(a), "video": self.projector(patches)}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        patches = z["video"].shape[1]
        return self.out(torch.cat([z["video"], z["audio"]], dim=1))[:, patches:]  # type: ignore[no-any-return]

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: sequence.mean(1) for name, sequence in z.items()}

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = self.shifted(logits, target)
        return losses.sum(1) / (target[:, 1:] != -100).sum(1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.shifted(logits, target).sum() / (target[:, 1:] != -100).sum()

    def shifted(self, logits: Tensor, target: Tensor) -> Tensor:
        before, after = logits[:, :-1].flatten(0, 1), target[:, 1:].flatten()
        return F.cross_entropy(before, after, ignore_index=-100, reduction="none").view(BATCH, -1)

    def batch(self, seed: int) -> tuple[list[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(WORDS, (BATCH, TOKENS), generator=generator)
        patches = torch.randn(BATCH, 3, 5, generator=generator).double() + ids[:, :1, None]
        target = ids.clone()
        for row in range(BATCH):
            target[row, : 1 + row % 3] = -100
        return [ids, patches], target


class Queries(Family):
    """Learned queries read the image by attention, and go before the words."""

    lengths = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, WIDTH))
        self.reader = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.0, batch_first=True)
        self.out = nn.Linear(WIDTH, CLASSES)

    def encoders(self) -> dict[str, Any]:
        return {"audio": self.audio, "video": [self.video, self.reader, "queries"]}

    def settings(self) -> dict[str, Any]:
        return {"features": {"audio": 0, "video": 0}}  # attention returns its weights, too

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        maps = self.video(v)
        read, _ = self.reader(self.queries.expand(len(v), -1, -1), maps, maps)
        return {"audio": self.audio(a), "video": read}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        return self.out(self.layer(torch.cat([z["video"], z["audio"]], dim=1)).mean(1))  # type: ignore[no-any-return]

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: sequence.mean(1) for name, sequence in z.items()}


class DualEncoder(Family):
    """Similarities of all pairs of a batch, with a learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def settings(self) -> dict[str, Any]:
        return {"criterion": contrastive, "scores": spread}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        a, v = (F.normalize(f, dim=1) for f in z.values())
        return self.scale.exp() * a @ v.t()

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return contrastive(logits, target, "none")

    def batch(self, seed: int) -> tuple[list[Tensor], Tensor]:
        inputs, _ = super().batch(seed)
        return inputs, torch.arange(BATCH)


def contrastive(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    there = F.cross_entropy(logits, target, reduction=reduction)
    return (there + F.cross_entropy(logits.t(), target, reduction=reduction)) / 2


def spread(z: Any) -> dict[str, Tensor]:
    """How far a modality tells the samples apart: similarities with itself."""
    unit = {name: F.normalize(f, dim=1) for name, f in z.items()}
    return {name: 10 * f @ f.t() for name, f in unit.items()}


class Denoiser(nn.Module):
    """Sound and picture through one trunk, a loss for each and no logits."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.video, self.trunk = (
            nn.Linear(4, WIDTH),
            nn.Linear(5, WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )
        self.audio_out, self.video_out = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 5)

    def forward(self, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk((self.audio(a) + self.video(v)).relu())
        return self.audio_out(hidden), self.video_out(hidden)
