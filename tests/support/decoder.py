"""A small decoder that sees: image and text tokens go through one trunk with adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

VOCABULARY, PLACEHOLDER, WIDTH = 13, 0, 12


class Adapted(nn.Module):
    """A frozen linear layer with an adapter of low rank beside it."""

    def __init__(self, rows: int, columns: int, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(columns, rows)
        self.base.requires_grad_(False)
        self.lora_A = nn.Linear(columns, rank, bias=False)
        self.lora_B = nn.Linear(rank, rows, bias=False)
        # Which tokens train the adapter, for the slow twin: None for all, as ever.
        self.only: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.only is None:
            return self.base(x) + self.lora_B(self.lora_A(x))  # type: ignore[no-any-return]
        return self.base(x) + masked(self.lora_B, masked(self.lora_A, x, self.only), self.only)  # type: ignore[no-any-return]


def masked(layer: nn.Linear, x: Tensor, only: Tensor) -> Tensor:
    """What a layer returns; its parameters are trained by some of the tokens alone."""
    bias = layer.bias
    trained = F.linear(x, layer.weight, bias)
    fixed = F.linear(x, layer.weight.detach(), None if bias is None else bias.detach())
    return torch.where(only[..., None], trained, fixed)


class Block(nn.Module):
    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.norm, self.q = nn.LayerNorm(width), Adapted(width, width, rank)
        self.v, self.up = Adapted(width, width, rank), Adapted(2 * width, width, rank)
        self.down = Adapted(width, 2 * width, rank)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        h = self.norm(x)
        weights = (self.q(h) @ h.transpose(1, 2) / h.shape[-1] ** 0.5).masked_fill(~seen, -1e9)
        x = x + weights.softmax(-1) @ self.v(h)
        return x + self.down(F.gelu(self.up(x)))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Placeholders among the ids are filled with patches, in their order, as Qwen2-VL does.

    Args:
        layers: of the trunk.
        checkpointed: whether its layers are recomputed in the backward pass.
    """

    def __init__(
        self, layers: int = 2, width: int = WIDTH, rank: int = 2, checkpointed: bool = False
    ) -> None:
        super().__init__()
        self.vision, self.embed = nn.Linear(5, width), nn.Embedding(VOCABULARY, width)
        self.trunk = nn.ModuleList(Block(width, rank) for _ in range(layers))
        self.out = nn.Linear(width, VOCABULARY)
        self.checkpointed: Any = checkpointed

    def forward(self, ids: Tensor, patches: Tensor, samples: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V).

        Args:
            ids: shape (B, T); as many are placeholders as there are patches.
            patches: shape (P, 5), of all samples one after another.
            samples: which sample of a packed row a token belongs to, shape (B, T).
        """
        x = self.embed(ids)
        x = x.masked_scatter((ids == PLACEHOLDER)[..., None], self.vision(patches).to(x.dtype))
        length = ids.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None]
        if samples is not None:
            seen = seen & (samples[:, :, None] == samples[:, None])
        for block in self.trunk:
            if self.checkpointed:
                x = checkpoint(block, x, seen, use_reentrant=self.checkpointed == "reentrant")
            else:
                x = block(x, seen)
        return self.out(x)  # type: ignore[no-any-return]


def tokens_of(ids: Tensor, *given: Any, **more: Any) -> Mapping[str, Tensor]:
    """Return the image tokens; all others are text."""
    return {"image": ids == PLACEHOLDER}


def batch(seed: int = 0, size: int = 4, length: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, patches and labels; images have from none to five tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (size, length), generator=generator)
    for row in range(size):
        count = (seed + 2 * row) % 6
        ids[row, 1 : 1 + count] = PLACEHOLDER
    patches = torch.randn(int((ids == PLACEHOLDER).sum()), 5, generator=generator)
    labels = ids.masked_fill(ids == PLACEHOLDER, -100)
    return ids, patches.double(), labels


def through(model: Decoder, only: Tensor | None, loss: Any) -> dict[str, Tensor]:
    """The slow twin: gradients of a pass in which some tokens alone train the adapters."""
    model.zero_grad()
    layers = [module for module in model.modules() if isinstance(module, Adapted)]
    for layer in layers:
        layer.only = only
    loss().backward()
    for layer in layers:
        layer.only = None
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found
