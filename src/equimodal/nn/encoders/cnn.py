"""Small convolutional encoders for signals, images and clips."""

from __future__ import annotations

import itertools
from typing import ClassVar, Literal

from torch import Tensor, nn

from equimodal.errors import SetupError, unknown
from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_shape, refuse_sizes

Norm = Literal["batch", "group", "none"]


class _CNN(nn.Module):
    """Convolutions of stride 2, each with normalisation and ReLU, averaged over positions."""

    convolution: ClassVar[type[nn.Conv1d | nn.Conv2d | nn.Conv3d]]
    batch_norm: ClassVar[type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]]
    axes: ClassVar[tuple[str, ...]]
    time: ClassVar[int]  # which axis of a batch is time

    def __init__(
        self,
        in_channels: int,
        features: int = 64,
        *,
        width: int = 16,
        depth: int = 3,
        norm: Norm = "batch",
        bins: int = 1,
    ) -> None:
        super().__init__()
        refuse_sizes(
            self, in_channels=in_channels, features=features, width=width, depth=depth, bins=bins
        )
        if norm not in ("batch", "group", "none"):
            raise SetupError(unknown("norm", str(norm), ("batch", "group", "none")))
        self.in_channels = in_channels
        self.features = features
        channels = [in_channels, *(width * 2**level for level in range(depth - 1)), features]
        self.layers = nn.Sequential(
            *(self._block(*ends, norm) for ends in itertools.pairwise(channels))
        )
        self.bins = bins
        self.together = nn.Linear(bins * features, features) if bins > 1 else None
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, features)``."""
        refuse_shape(self, x, ("B", self.in_channels, *self.axes))
        maps: Tensor = self.layers(x)
        if self.together is None:
            return maps.flatten(2).mean(dim=2)
        over_time = maps.movedim(self.time, 2).flatten(3).mean(dim=3) if maps.ndim > 3 else maps
        parts = nn.functional.adaptive_avg_pool1d(over_time, self.bins)
        together: Tensor = self.together(parts.flatten(1))
        return together

    def _block(self, in_channels: int, channels: int, norm: Norm) -> nn.Sequential:
        bias = norm == "none"  # normalisation would take a bias off again
        convolution = self.convolution(in_channels, channels, 3, stride=2, padding=1, bias=bias)
        return nn.Sequential(convolution, *self._normalisation(channels, norm), nn.ReLU())

    def _normalisation(self, channels: int, norm: Norm) -> list[nn.Module]:
        if norm == "none":
            return []
        if norm == "batch":
            return [self.batch_norm(channels)]
        return [nn.GroupNorm(1 if channels % 8 else channels // 8, channels)]


class CNN1d(_CNN):
    """A small convolutional encoder of signals ``(B, C, L)``, such as waveforms or accelerations.

    Every layer is a convolution of size 3 and stride 2, normalisation and ReLU; the last map is
    averaged over all positions. No input is too short. Weights are drawn by `initialise`.

    Args:
        in_channels: C.
        features: channels of the last layer, the width of the output.
        width: channels of the first layer, doubled by each that follows but the last.
        depth: number of layers.
        norm: "batch", "group" (groups of 8 channels where that divides them, else one group),
            "none". Without BatchNorm a sample's features do not depend on its batch.
        bins: parts of time that are averaged each by itself, and then put together by a linear
            layer: with 1, the default, the order of time is lost. Time is L, W of `CNN2d` and T of
            `CNN3d`.

    Attributes:
        features: width of the output.

    Raises:
        SetupError: an argument is out of its range, or the input has another shape.

    >>> import torch
    >>> CNN1d(in_channels=6, features=32)(torch.randn(2, 6, 100)).shape
    torch.Size([2, 32])
    """

    convolution = nn.Conv1d
    batch_norm = nn.BatchNorm1d
    axes = ("L",)
    time = 2


class CNN2d(_CNN):
    """A small convolutional encoder of images and spectrograms ``(B, C, H, W)``.

    Built, and with arguments, like `CNN1d`.

    >>> import torch
    >>> CNN2d(in_channels=3, features=32)(torch.randn(2, 3, 28, 28)).shape
    torch.Size([2, 32])
    """

    convolution = nn.Conv2d
    batch_norm = nn.BatchNorm2d
    axes = ("H", "W")
    time = 3


class CNN3d(_CNN):
    """A small convolutional encoder of clips ``(B, C, T, H, W)``: it sees motion.

    Built, and with arguments, like `CNN1d`.

    >>> import torch
    >>> CNN3d(in_channels=3, features=32)(torch.randn(2, 3, 8, 16, 16)).shape
    torch.Size([2, 32])
    """

    convolution = nn.Conv3d
    batch_norm = nn.BatchNorm3d
    axes = ("T", "H", "W")
    time = 2
