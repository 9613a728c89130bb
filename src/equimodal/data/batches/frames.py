"""Frames of a batch as they are stored, with what was drawn to be done to them."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[int, int, int, int]  # top, left, height, width
RATIOS = (3 / 4, 4 / 3)  # of width to height, of random crops
TRIES = 10
STILL = 128  # of optical flow, where nothing moves


class Frames(NamedTuple):
    """Frames of a sample, or of a batch B of them.

    Attributes:
        pixels: uint8, shape ``([B,] frames, H, W, C)``, C 3 for RGB and 2 for optical flow; clips
            that are smaller than the largest of the batch fill the upper left corner.
        box: int64, shape ``([B,] 4)``: top, left, height and width of the part to keep, the same
            in all frames of a clip.
        mirrored: bool, shape ``([B])``.
    """

    pixels: Tensor
    box: Tensor
    mirrored: Tensor


def decoded(stored: Any) -> Image:
    """Return an image that Pillow reads, decoded, as grey or as RGB.

    Raises:
        OSError: it cannot be decoded.
        SyntaxError: as OSError.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(stored))
    image.load()
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def stacked(images: Sequence[Image]) -> Tensor:
    """Return images of one size in RGB: uint8, shape ``(frames, H, W, 3)``."""
    import numpy as np

    # Only the stack copies: a view of an image cannot be written to, which torch warns of.
    rgb = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
    return torch.from_numpy(np.stack([np.asarray(image) for image in rgb]))


def flowing(images: Sequence[Image]) -> Tensor:
    """Return grey images, across and down in turn: uint8, shape ``(frames, H, W, 2)``."""
    import numpy as np

    grey = np.stack([np.asarray(image.convert("L")) for image in images])
    pairs = torch.from_numpy(grey).view(len(images) // 2, 2, *grey.shape[1:])
    return pairs.permute(0, 2, 3, 1).contiguous()


def in_each_part(stored: int, parts: int, draw: random.Random) -> list[int]:
    """Return a random frame of each of so many equal parts of a clip, in order.

    >>> in_each_part(75, 3, random.Random(0))
    [21, 43, 60]
    """
    return [min(int((part + draw.random()) * stored / parts), stored - 1) for part in range(parts)]


def middles(stored: int, parts: int) -> list[int]:
    """Return the middle frame of each of so many equal parts of a clip.

    >>> middles(75, 3), middles(1, 2)
    ([12, 37, 62], [0, 0])
    """
    return [int((part + 0.5) * stored / parts) for part in range(parts)]


def random_box(height: int, width: int, scale: tuple[float, float], draw: random.Random) -> Box:
    """Draw a part of a frame as torchvision's RandomResizedCrop does.

    Its share of the area is uniform, the ratio of its sides is uniform in log space from 3/4 to
    4/3. Where ten draws do not fit into the frame, it is the largest part in the middle that has
    such a ratio.

    Args:
        height: of the frame.
        width: of the frame.
        scale: least and largest share of the area.
        draw: where random numbers come from.
    """
    low, high = (math.log(ratio) for ratio in RATIOS)
    for _ in range(TRIES):
        area = height * width * (scale[0] + draw.random() * (scale[1] - scale[0]))
        ratio = math.exp(low + draw.random() * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = (int(draw.random() * (room + 1)) for room in (height - h, width - w))
            return top, left, h, w
    h = min(height, round(width / RATIOS[0]))
    w = min(width, round(height * RATIOS[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def centre_box(height: int, width: int) -> Box:
    """Return the largest square in the middle of a frame.

    >>> centre_box(256, 320)
    (0, 32, 256, 256)
    """
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def padded(samples: Sequence[Frames]) -> Frames:
    """Return samples as one batch."""
    height, width = (max(each.pixels.shape[axis] for each in samples) for axis in (1, 2))
    together: Frames = default_collate([_enlarged(each, height, width) for each in samples])
    return together


def _enlarged(sample: Frames, height: int, width: int) -> Frames:
    count, own_height, own_width, channels = sample.pixels.shape
    if (own_height, own_width) == (height, width):
        return sample
    pixels = torch.zeros(count, height, width, channels, dtype=torch.uint8)
    pixels[:, :own_height, :own_width] = sample.pixels
    return sample._replace(pixels=pixels)
