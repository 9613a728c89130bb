"""From a raw batch to the inputs of a model, on the device of the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.data.batches.frames import STILL, Frames
from equimodal.data.batches.sample import Sample
from equimodal.data.batches.spectrogram import spectrogram
from equimodal.data.batches.view import View

# Of ImageNet's training images in RGB, 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FLOW = 32.0  # levels of flow that become 1: 5 pixels, where 0 to 255 are -20 to 20


class Spectrograms(nn.Module):
    """Spectrograms of 16 bit sound.

    Args:
        view: how samples look.
        rate: of the sound, in Hz.
    """

    def __init__(self, view: View, rate: int) -> None:
        super().__init__()
        self.of = spectrogram(view, rate)

    def forward(self, sound: Tensor) -> Tensor:
        """Return float32, ``(B, 1, F, T)``, of int16 sound, ``(B, samples)``."""
        made: Tensor = self.of(sound.float().div_(2**15))
        return made[:, None]


class Crops(nn.Module):
    """The parts of frames that were drawn, resized, mirrored and normalised.

    Resized bilinearly and without antialiasing, on a CPU in 8 bit: to one grey level. Normalised
    with mean and deviation of ImageNet.

    Args:
        size: height and width, in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, frames: Frames) -> Tensor:
        """Return float32, ``(B, 3, frames, size, size)``."""
        scale, shift = _imagenet(frames.pixels.device)
        return cropped(frames, self.size).mul_(scale).sub_(shift).transpose(1, 2)


class Flows(nn.Module):
    """The parts of optical flow that were drawn, resized and mirrored: 0 where nothing moves.

    Mirrored, what moved to the right moves to the left.

    Args:
        size: height and width, in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, frames: Frames) -> Tensor:
        """Return float32, ``(B, 2, frames, size, size)``."""
        made = cropped(frames, self.size).sub_(STILL).div_(FLOW)
        sign = torch.where(frames.mirrored, -1.0, 1.0)
        made[:, :, 0] *= sign[:, None, None, None]
        return made.transpose(1, 2)


class Words(nn.Module):
    """Counts of words as a vector: logarithms, of mean square 1."""

    def forward(self, counts: Tensor) -> Tensor:
        """Return float32 of the shape of the uint8 counts, ``(B, words)``; 0 for no words."""
        logs = counts.float().log1p()
        scale = logs.square().mean(dim=1, keepdim=True).sqrt()
        return logs / torch.where(scale > 0, scale, 1)


class Pictures(nn.Module):
    """Pictures from 0 to 1."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float32 of the shape of the uint8 pixels, ``(B, C, H, W)``."""
        return pixels.float() / 255


class Inputs(tuple[Any, ...]):
    """``(input, ..., target)``, and which samples have which modality.

    Attributes:
        present: bool, shape ``(B,)``, by the name of the modality, as `Balancer.loss` takes it;
            None where all samples have all.
    """

    present: dict[str, Tensor] | None = None


class Transform(nn.Module):
    """Makes the inputs of a model from a raw batch.

    Without state, and without a mode: what is random was drawn by the data set, for training or
    for evaluation. Computes in float32 also where autocast is on.

    Args:
        kinds: of each modality, such as "sound", in the order of a sample.
        rates: of each modality of sound, in Hz.
        view: how samples look.
    """

    def __init__(self, kinds: Mapping[str, str], rates: Mapping[str, int], view: View) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {}
        for name, kind in kinds.items():
            if kind == "sound":
                parts[name] = Spectrograms(view, rates[name])
            elif kind in ("frames", "flow"):
                parts[name] = {"frames": Crops, "flow": Flows}[kind](view.size)
            else:
                parts[name] = Words() if kind == "text" else Pictures()
        self.names = tuple(parts)
        self.parts = nn.ModuleList(parts.values())

    def forward(self, batch: Sample, device: torch.device | str | None = None) -> Inputs:
        """Return ``(input, ..., target)``.

        Sound becomes ``(B, 1, F, T)``, frames ``(B, 3, frames, size, size)``, optical flow the same
        with 2 channels, text ``(B, words)``, a picture ``(B, C, H, W)``, all float32; the target
        stays int64, ``(B,)``. Where samples may lack modalities, its `present` says which have
        them.

        Args:
            batch: as a loader of the data set gives it.
            device: where to bring it first; it stays where it is by default.
        """
        target: Any
        *pieces, target = batch if device is None else tuple(_moved(b, device) for b in batch)
        kind = target.device.type
        with torch.no_grad(), _in_float32(kind), _alone(kind):
            made = [part(piece) for part, piece in zip(self.parts, pieces, strict=False)]
        inputs = Inputs((*made, target))
        if len(pieces) > len(self.parts):
            inputs.present = dict(zip(self.names, pieces[-1].unbind(1), strict=True))
        return inputs


def cropped(frames: Frames, size: int) -> Tensor:
    """Return the parts that boxes name, as is fastest: on a CPU one by one, three times as fast.

    Only what is kept need become float there. See `cropped_at_once`.
    """
    crop = cropped_one_by_one if frames.pixels.device.type == "cpu" else cropped_at_once
    return crop(frames, size)


def cropped_at_once(frames: Frames, size: int) -> Tensor:
    """Return the parts that boxes name, 0 to 255, resized: ``(B, frames, C, size, size)``."""
    batch, count, height, width, channels = frames.pixels.shape
    top, left, box_height, box_width = (side[:, None].float() for side in frames.box.unbind(1))
    centres = torch.arange(size, device=frames.pixels.device) + 0.5
    # Not beyond the box: its edge goes on, whatever pixels are there.
    y = (centres * box_height / size - 0.5).clamp(min=0).minimum(box_height - 1) + top
    x = (centres * box_width / size - 0.5).clamp(min=0).minimum(box_width - 1) + left
    x = torch.where(frames.mirrored[:, None], x.flip(1), x)
    rows = ((2 * y + 1) / height - 1)[:, :, None].expand(batch, size, size)
    columns = ((2 * x + 1) / width - 1)[:, None, :].expand(batch, size, size)
    flat = frames.pixels.permute(0, 1, 4, 2, 3).reshape(batch, count * channels, height, width)
    grid = torch.stack([columns, rows], dim=3)
    resized = F.grid_sample(flat.float(), grid, align_corners=False)
    return resized.view(batch, count, channels, size, size)


def cropped_one_by_one(frames: Frames, size: int) -> Tensor:
    """Return what `cropped_at_once` returns, rounded to whole numbers."""
    batch, count, *_, channels = frames.pixels.shape
    made = torch.empty(batch, count, channels, size, size, device=frames.pixels.device)
    for place, pixels, box, mirrored in zip(made, *frames, strict=True):
        top, left, height, width = box.tolist()
        part = pixels[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
        # In 8 bit, for which torch has twice as fast a way.
        resized = F.interpolate(part, (size, size), mode="bilinear", align_corners=False)
        # Sorted by channels first, in 8 bit, and made float then: two thirds of the time.
        place.copy_((resized.flip(3) if mirrored else resized).contiguous())
    return made


@cache
@torch.inference_mode(False)  # what is kept must serve outside of it too
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return by what pixels of 0 to 255 are multiplied, and what is subtracted then."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    return 1 / (255 * std), mean / std


def _in_float32(kind: str) -> contextlib.AbstractContextManager[Any]:
    if not torch.amp.is_autocast_available(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


@contextlib.contextmanager
def _alone(kind: str) -> Iterator[None]:
    """Compute on a CPU in one thread.

    Of a sample there is so little to do that threads wait for each other most of the time: where
    workers keep the cores busy, two take five times the processor time of one.
    """
    threads = torch.get_num_threads()
    if kind != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _moved(piece: Any, device: torch.device | str) -> Any:
    if isinstance(piece, Frames):
        return Frames(*(part.to(device, non_blocking=True) for part in piece))
    return piece.to(device, non_blocking=True)
