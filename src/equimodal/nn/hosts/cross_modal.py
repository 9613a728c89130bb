"""A transformer whose modalities attend to each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.encoders import SequenceTransformer
from equimodal.nn.hosts.named import NamedHead
from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_dropout, refuse_inputs, refuse_shape, refuse_sizes


class TokenEncoder(nn.Module):
    """Tokens of one modality: a linear layer, positions and self-attention, without pooling.

    Args:
        inputs: D, the number of values of one step.
        features: width of a token, a multiple of `heads`.
        layers: layers of self-attention.
        heads: number of attention heads.
        dropout: probability of dropout in training.

    Attributes:
        features: width of a token.
    """

    def __init__(
        self, inputs: int, features: int = 64, layers: int = 1, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.features = features
        self.transformer = SequenceTransformer(inputs, features, layers, heads, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``(B, T, features)`` of sequences ``(B, T, D)``."""
        refuse_shape(self, x, ("B", "T", self.inputs))
        layers = self.transformer
        tokens: Tensor = layers.encoder(layers.positions(layers.embedding(x)))
        return tokens


class CrossModalLayer(nn.Module):
    r"""One layer in which the tokens of one modality attend to those of another.

    .. math::
        \hat z = z + \operatorname{MHA}(\operatorname{LN}(z), \operatorname{LN}(s)), \quad
        z \leftarrow \hat z + \operatorname{FF}(\operatorname{LN}(\hat z))

    MHA is multi-head attention with queries from z, keys and values from the source s (Tsai et
    al., ACL 2019), FF two linear layers with GELU between them.

    Args:
        width: D, a multiple of `heads`.
        heads: number of attention heads.
        dropout: probability of dropout in training: of attention weights, and of what is added.
    """

    def __init__(self, width: int, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        refuse_sizes(self, width=width, heads=heads)
        refuse_dropout(self, dropout)
        if width % heads:
            raise SetupError(
                f"CrossModalLayer(width): expected a multiple of heads={heads}, found {width}"
            )
        self.norm = nn.LayerNorm(width)
        self.source_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        initialise(self)

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """Return tokens ``(B, T, D)`` as given; the source is ``(B, S, D)``."""
        keys = self.source_norm(source)
        read, _ = self.attention(self.norm(tokens), keys, keys, need_weights=False)
        tokens = tokens + self.dropout(read)
        output: Tensor = tokens + self.dropout(self.feedforward(tokens))
        return output


class CrossModalHead(NamedHead):
    r"""Attention of every modality to every other, pooling, and a linear layer.

    .. math::
        z_{s \to m} = \operatorname{layers}_{s \to m}(z_m, z_s), \quad
        f = W [\overline{z_{s \to m}}]_{m, s \ne m} + b

    The bar averages over tokens.

    Args:
        names: the modalities, in order.
        width: D, the width of all tokens.
        classes: C, the number of logits.
        layers: layers of each pair.
        heads: number of attention heads.
        dropout: see `CrossModalLayer`.

    Attributes:
        pairs: ``pairs[m][s]`` are the layers with which m attends to s.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        width: int,
        classes: int,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dict.fromkeys(names, width), classes)
        refuse_sizes(self, layers=layers)
        self.pairs = nn.ModuleDict()
        for name in names:
            sources = nn.ModuleDict()
            for source in names:
                if source != name:
                    stack = (CrossModalLayer(width, heads, dropout) for _ in range(layers))
                    sources[source] = nn.ModuleList(stack)
            self.pairs[name] = sources
        self.linear = nn.Linear(len(names) * (len(names) - 1) * width, classes)
        initialise(self.linear)

    def forward(self, **features: Tensor) -> Tensor:
        """Return logits ``(B, C)`` of the tokens ``(B, T_m, D)`` of every modality."""
        tokens = self.ordered(features)
        read = []
        for name, sources in self.pairs.items():
            assert isinstance(sources, nn.ModuleDict)
            for source, layers in sources.items():
                assert isinstance(layers, nn.ModuleList)
                attending = tokens[name]
                for layer in layers:
                    attending = layer(attending, tokens[source])
                read.append(attending.mean(dim=1))
        logits: Tensor = self.linear(torch.cat(read, dim=1))
        return logits


class CrossModalTransformer(nn.Module):
    """A small transformer with cross-modal attention, after MulT (Tsai et al., ACL 2019).

    Each modality has a `TokenEncoder`; in the head each attends to every other, by layers of
    their own for each ordered pair. Sequences of different modalities need not be aligned, nor
    equally long.

    Args:
        inputs: for each modality the number of values of one step; two or more.
        classes: C, the number of logits.
        features: width of a token, a multiple of `heads`.
        layers: layers of self-attention in each encoder, and of cross-modal attention for each
            pair.
        heads: number of attention heads.
        dropout: probability of dropout in training.

    Attributes:
        encoders: for each modality a `TokenEncoder`.
        head: a `CrossModalHead`, which holds all layers that read two modalities.

    Raises:
        SetupError: an argument is out of its range, or an input has another shape.

    >>> import torch
    >>> model = CrossModalTransformer({"accelerometer": 3, "gyroscope": 3}, classes=7, features=16)
    >>> model(torch.randn(2, 100, 3), torch.randn(2, 50, 3)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        classes: int,
        *,
        features: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not isinstance(inputs, Mapping) or len(inputs) < 2:
            raise SetupError(
                "CrossModalTransformer(inputs): expected a dict of two or more modalities and the "
                f'number of values of a step, such as {{"audio": 48, "text": 300}}, found {inputs}'
            )
        self.head = CrossModalHead(tuple(inputs), features, classes, layers, heads, dropout)
        self.encoders = nn.ModuleDict(
            {
                name: TokenEncoder(size, features, layers, heads, dropout)
                for name, size in inputs.items()
            }
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits ``(B, C)`` of one sequence ``(B, T_m, D_m)`` per modality, in order."""
        refuse_inputs(self, self.encoders, inputs)
        tokens = {
            name: encoder(x)
            for (name, encoder), x in zip(self.encoders.items(), inputs, strict=True)
        }
        logits: Tensor = self.head(**tokens)
        return logits
