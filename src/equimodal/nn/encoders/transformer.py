"""A small transformer for sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.encoders.positions import SinusoidalPositions
from equimodal.nn.refusals import refuse_dropout, refuse_shape, refuse_sizes


class SequenceTransformer(nn.Module):
    """A transformer encoder of sequences ``(B, T, D)``, averaged over time.

    A linear layer brings every step to the width of the features, positions are added, and
    layers of self-attention follow (Vaswani et al., NeurIPS 2017), normalised before each part,
    which trains without a warm-up of the learning rate. Matrices are drawn uniformly with the
    variance 2/(fan_in + fan_out), as `torch.nn.Transformer` does.

    Args:
        inputs: D, the number of values of one step.
        features: width of a step inside and of the output, a multiple of `heads`.
        layers: number of layers.
        heads: number of attention heads.
        feedforward: width of the hidden layer in each layer, by default 4 times `features`.
        dropout: probability of dropout in training, in every layer.
        positions: takes and returns ``(B, T, features)``: `SinusoidalPositions()` by default, or
            ``LearnedPositions(length, features)``.

    Attributes:
        features: width of the output.

    Raises:
        SetupError: an argument is out of its range, or an input has another shape.

    >>> import torch
    >>> encoder = SequenceTransformer(inputs=6, features=32)
    >>> mask = torch.tensor([[True] * 10, [True] * 4 + [False] * 6])  # 10 steps, and 4
    >>> encoder(torch.randn(2, 10, 6), mask).shape
    torch.Size([2, 32])
    """

    def __init__(
        self,
        inputs: int,
        features: int = 64,
        layers: int = 2,
        heads: int = 4,
        *,
        feedforward: int | None = None,
        dropout: float = 0.1,
        positions: nn.Module | None = None,
    ) -> None:
        super().__init__()
        feedforward = 4 * features if feedforward is None else feedforward
        refuse_sizes(self, inputs=inputs, features=features, layers=layers, heads=heads)
        refuse_sizes(self, feedforward=feedforward)
        refuse_dropout(self, dropout)
        if features % heads:
            raise SetupError(
                f"SequenceTransformer(features): expected a multiple of heads={heads}, "
                f"found {features}"
            )
        self.inputs = inputs
        self.features = features
        self.embedding = nn.Linear(inputs, features)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                features,
                heads,
                feedforward,
                dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            ),
            layers,
            norm=nn.LayerNorm(features),
            enable_nested_tensor=False,
        )
        for parameter in self.parameters():  # TransformerEncoder copies one layer: all start alike
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.positions = SinusoidalPositions() if positions is None else positions

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return features ``(B, features)``.

        Args:
            x: sequences, shape ``(B, T, D)``.
            mask: where a sequence has a step, shape ``(B, T)``, bool; everywhere by default. What
                x holds elsewhere does not matter. The features of a sequence without any are 0.
        """
        refuse_shape(self, x, ("B", "T", self.inputs))
        if mask is None:
            steps: Tensor = self.encoder(self.positions(self.embedding(x)))
            return steps.mean(dim=1)
        if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
            raise SetupError(
                f"SequenceTransformer(mask): expected bool of shape {tuple(x.shape[:2])}, "
                f"found {mask.dtype} of shape {tuple(mask.shape)}"
            )
        here = mask.unsqueeze(-1)
        embedded = self.positions(self.embedding(x.masked_fill(~here, 0)))
        hidden = ~mask & mask.any(dim=1, keepdim=True)  # attention to nothing at all would be NaN
        steps = self.encoder(embedded, src_key_padding_mask=hidden)
        return (steps * here).sum(dim=1) / here.sum(dim=1).clamp(min=1)
