"""A multilayer perceptron for vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_dropout, refuse_shape, refuse_sizes


class MLP(nn.Module):
    """Linear layers with ReLU and dropout between them, on the flattened input.

    The last layer is linear: its output is not rectified. Weights are drawn by `initialise`.

    Args:
        inputs: number of values of one sample.
        hidden: widths of the layers in between; none makes it one linear layer.
        features: width of the output.
        dropout: probability that a hidden value is dropped in training.

    Attributes:
        features: width of the output.

    Raises:
        SetupError: an argument is out of its range, or a sample has another number of values.

    >>> import torch
    >>> MLP(inputs=12, hidden=(32, 32), features=8)(torch.randn(2, 3, 4)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int] = (128,),
        features: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        refuse_sizes(self, inputs=inputs, features=features)
        refuse_sizes(self, **{f"hidden[{index}]": width for index, width in enumerate(hidden)})
        refuse_dropout(self, dropout)
        self.inputs = inputs
        self.features = features
        *lower, last = itertools.pairwise([inputs, *hidden, features])
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(*ends), nn.ReLU(), nn.Dropout(dropout)) for ends in lower),
            nn.Linear(*last),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, features)`` of samples ``(B, ...)`` with `inputs` values each."""
        flat = x.flatten(1) if x.ndim > 1 else x
        refuse_shape(self, flat, ("B", self.inputs))
        features: Tensor = self.layers(flat)
        return features
