"""ResNet-18 for spectrograms, images and video frames."""

from __future__ import annotations

from torch import Tensor, nn

from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_shape, refuse_sizes


class ResNet18(nn.Module):
    """The trunk of ResNet-18 (He et al., CVPR 2016), pooled as in OGM-GE (Peng et al., CVPR 2022).

    There is no classification layer: a fusion head follows. The number of dimensions of the input
    decides what it is. A map ``(B, C, H, W)``, such as a spectrogram or an image, is averaged over
    space. Frames ``(B, C, T, H, W)`` are folded into the batch, run through the same network, and
    averaged over time and space; BatchNorm sees ``B * T`` frames then. Weights are drawn by
    `initialise`.

    Args:
        in_channels: C, 1 for a spectrogram and 3 for colour.
        width: channels of the first stage, doubled by each of the three that follow. 64 is
            ResNet-18, with 11.2 million parameters; less makes a smaller one.

    Attributes:
        features: width of the output, 8 times `width`: 512.

    Raises:
        SetupError: a size is not positive, or the input has another shape.

    >>> import torch
    >>> audio, visual = ResNet18(in_channels=1), ResNet18(in_channels=3)
    >>> audio(torch.randn(2, 1, 65, 48)).shape  # one channel, frequency, time
    torch.Size([2, 512])
    >>> visual(torch.randn(2, 3, 4, 32, 32)).shape  # four frames
    torch.Size([2, 512])
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        refuse_sizes(self, in_channels=in_channels, width=width)
        self.in_channels = in_channels
        self.features = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.Sequential(
            _stage(width, width, stride=1),
            _stage(width, 2 * width, stride=2),
            _stage(2 * width, 4 * width, stride=2),
            _stage(4 * width, 8 * width, stride=2),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, features)`` of a map ``(B, C, H, W)`` or ``(B, C, T, H, W)``."""
        channels = self.in_channels
        refuse_shape(self, x, ("B", channels, "H", "W"), ("B", channels, "T", "H", "W"))
        if x.ndim == 4:
            return self._pooled(x)
        frames = x.transpose(1, 2)
        pooled = self._pooled(frames.flatten(0, 1))
        return pooled.view(*frames.shape[:2], self.features).mean(dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        maps: Tensor = self.stages(self.stem(x))
        return maps.mean(dim=(2, 3))


class _Block(nn.Module):
    """Two 3x3 convolutions, added to the input, or to its projection where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return output


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(in_channels, channels, stride), _Block(channels, channels, 1))
