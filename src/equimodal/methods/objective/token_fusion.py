"""A transformer over one token per modality, which leaves out what a sample lacks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.noise import mix
from equimodal.readout import feature_vectors, move, vector_width
from equimodal.step import Shapes


class Block(nn.Module):
    """Attention and two layers, each on normalised tokens and added to them.

    Without dropout: it would draw from the user's random numbers.

    Args:
        width: of a token.
        heads: of the attention.
        dtype: of the parameters.
    """

    def __init__(self, width: int, heads: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width, dtype=dtype)
        self.mixed = nn.Linear(width, 3 * width, dtype=dtype)
        self.attended = nn.Linear(width, width, dtype=dtype)
        self.before_layers = nn.LayerNorm(width, dtype=dtype)
        self.first = nn.Linear(width, 4 * width, dtype=dtype)
        self.second = nn.Linear(4 * width, width, dtype=dtype)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Return tokens of the same shape.

        Args:
            tokens: shape ``(B, M, width)``.
            seen: which tokens are attended to, shape ``(B, M)``, bool.
        """
        size, many, width = tokens.shape
        parts = self.mixed(self.before_attention(tokens)).view(size, many, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(2, 3) / math.sqrt(width / self.heads)
        scores = scores.masked_fill(~seen[:, None, None], torch.finfo(scores.dtype).min)
        answer = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(size, many, width)
        tokens = tokens + self.attended(answer)
        return tokens + self.second(F.gelu(self.first(self.before_layers(tokens))))  # type: ignore[no-any-return]


class TokenFusion(nn.Module):
    """Projections of the features to tokens, blocks on them, and a classifier on their mean.

    Args:
        width: of a token.
        blocks: how many.
        heads: of the attention.
    """

    def __init__(self, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.width, self.many, self.heads = width, blocks, heads
        self.names: tuple[str, ...] = ()
        self.shape: tuple[int, ...] = ()
        self.projections = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.last = nn.ModuleList()  # normalisation and classifier

    def build(self, shapes: Shapes, seed: int) -> None:
        """Make the layers, once; their values follow from the seed and the names alone."""
        if self.names:
            return
        self.names, self.shape = tuple(shapes.features), shapes.logits
        with torch.random.fork_rng(devices=[]):
            for name, shape in shapes.features.items():
                torch.manual_seed(mix(seed, zlib.crc32(name.encode())))
                layer = nn.Linear(vector_width(shape), self.width, dtype=shapes.dtype)
                self.projections.append(layer)
            torch.manual_seed(seed)
            for _ in range(self.many):
                self.blocks.append(Block(self.width, self.heads, shapes.dtype))
            self.last.append(nn.LayerNorm(self.width, dtype=shapes.dtype))
            self.last.append(nn.Linear(self.width, math.prod(self.shape), dtype=shapes.dtype))
        move(self, shapes.device)

    def forward(self, features: Mapping[str, Tensor], seen: Tensor) -> Tensor:
        """Return logits of shape ``(B, *logits)``.

        Args:
            features: of every modality.
            seen: which samples have each modality, shape ``(M, B)``, bool, in the order of the
                names. A sample without any is given all.
        """
        tokens = torch.stack(
            [
                layer(feature_vectors(features[name]).to(layer.get_parameter("weight").dtype))
                for name, layer in zip(self.names, self.projections, strict=True)
            ],
            dim=1,
        )
        seen = seen.T | ~seen.any(dim=0)[:, None]
        for block in self.blocks:
            tokens = block(tokens, seen)
        normalised, classifier = self.last
        weight = seen.to(tokens.dtype)[..., None]
        pooled = (tokens * weight).sum(dim=1) / weight.sum(dim=1)
        logits: Tensor = classifier(normalised(pooled))
        return logits.view(-1, *self.shape)
