"""From what is stored of a clip to a sample, and from samples to a batch."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from equimodal.data.batches import frames, sound, text
from equimodal.data.batches.frames import Frames
from equimodal.data.batches.view import View
from equimodal.errors import SetupError

Piece = Tensor | Frames
Sample = tuple[Any, ...]  # a piece per modality, then the target
HEADER = 44  # bytes of a WAV file before its samples


class Stored(NamedTuple):
    """A clip as a shard holds it.

    Attributes:
        id: of the clip.
        label: the place of its class.
        pieces: for each modality the bytes of its files: one of sound, picture or text, several
            frames, two of each moment of optical flow.
        shard: the file, for errors.
    """

    id: str
    label: int
    pieces: Mapping[str, Sequence[Any]]
    shard: str


@dataclass(frozen=True)
class Maker:
    """Makes samples, as they look in training or in evaluation.

    What is random depends on the seed, the epoch and the id of a clip alone: not on its place, nor
    on the process that makes it.

    Args:
        kinds: of each modality, such as "sound", in the order of a sample.
        rates: of each modality of sound, in Hz.
        lengths: of each modality of sound, in samples.
        view: how samples look.
        training: with random frames, crops and mirroring, and a random part of longer sound.
        partial: whether samples may lack modalities.
    """

    kinds: Mapping[str, str]
    rates: Mapping[str, int]
    lengths: Mapping[str, int]
    view: View
    training: bool
    partial: bool = False

    def __call__(self, stored: Stored, seed: int, epoch: int) -> Sample:
        """Return ``(piece, ..., target)``.

        Sound is int16 of shape ``(T,)``, frames and flow are `Frames`, a picture is uint8 of shape
        ``(C, H, W)``, text uint8 of shape ``(words,)``, the target int64 of shape ``()``. Where
        samples may lack modalities, a bool tensor of shape ``(M,)`` before the target says which
        are there; the others are silent, black, still or empty.

        Raises:
            SetupError: a modality is missing that may not be or cannot be decoded.
        """
        pieces = []
        there = [bool(stored.pieces[name]) for name in self.kinds]
        for name, kind in self.kinds.items():
            if self.partial and not stored.pieces[name]:
                pieces.append(self._nothing(name, kind))
                continue
            draw = random.Random(f"{seed}:{epoch}:{stored.id}:{name}") if self.training else None
            try:
                pieces.append(self._piece(name, kind, stored.pieces[name], draw))
            except (OSError, SyntaxError, ValueError) as error:
                raise SetupError(
                    f"{stored.shard}: {name} of clip {stored.id!r} cannot be read: {error}: remove "
                    "the file and run the same `equimodal prepare ...` again"
                ) from error
        present = (torch.tensor(there),) if self.partial else ()
        return (*pieces, *present, torch.tensor(stored.label))

    def _nothing(self, name: str, kind: str) -> Piece:
        """Return what stands for a modality that a sample lacks."""
        if kind == "sound":
            return torch.zeros(self.lengths[name], dtype=torch.int16)
        if kind == "text":
            return torch.zeros(self.view.words, dtype=torch.uint8)
        if kind in ("frames", "flow"):
            grey, channels = (frames.STILL, 2) if kind == "flow" else (0, 3)
            pixels = torch.full((self.view.frames, 1, 1, channels), grey, dtype=torch.uint8)
            return Frames(pixels, torch.tensor((0, 0, 1, 1)), torch.tensor(False))
        raise ValueError("a picture cannot be missing: its size is not known")

    def _piece(
        self, name: str, kind: str, files: Sequence[Any], draw: random.Random | None
    ) -> Piece:
        if not files:
            raise ValueError("it is missing")
        if kind == "sound":
            return self._sound(name, files[0], draw)
        if kind == "frames":
            return self._frames(files, 1, draw)
        if kind == "flow":
            return self._frames(files, 2, draw)
        if kind == "text":
            return text.counted(bytes(files[0]).decode(), self.view.words)
        return _picture(files[0])

    def _sound(self, name: str, file: Any, draw: random.Random | None) -> Tensor:
        import numpy as np

        view = memoryview(file)
        if len(view) < HEADER + 2 or bytes(view[:4]) != b"RIFF":
            raise ValueError(f"it is no WAV file, or empty: {len(view)} bytes")
        rate = int.from_bytes(view[24:28], "little")
        if rate != self.rates[name]:
            raise ValueError(f"expected sound of {self.rates[name]} Hz, found {rate} Hz")
        pcm = np.frombuffer(view[HEADER:], "<i2")
        length = self.lengths[name]
        start = 0 if draw is None else sound.random_start(len(pcm), length, draw)
        return torch.from_numpy(sound.fit(pcm, length, start))

    def _frames(self, files: Sequence[Any], each: int, draw: random.Random | None) -> Frames:
        view, moments = self.view, len(files) // each
        if draw is None:
            chosen = frames.middles(moments, view.frames)
        else:
            chosen = frames.in_each_part(moments, view.frames, draw)
        images = [frames.decoded(files[place * each + n]) for place in chosen for n in range(each)]
        if len(sizes := {f"{image.width}x{image.height}" for image in images}) > 1:
            raise ValueError(f"expected frames of one size, found {', '.join(sorted(sizes))}")
        height, width = images[0].height, images[0].width
        if draw is None:
            box, mirrored = frames.centre_box(height, width), False
        else:
            box = frames.random_box(height, width, view.scale, draw)
            mirrored = draw.random() < view.flip
        pixels = frames.stacked(images) if each == 1 else frames.flowing(images)
        return Frames(pixels, torch.tensor(box), torch.tensor(mirrored))


def _picture(file: Any) -> Tensor:
    import numpy as np

    pixels = torch.from_numpy(np.array(frames.decoded(file)))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def collate(samples: Sequence[Sample]) -> Sample:
    """Return samples as one batch: the same parts, each with a first axis B."""
    # torch's own collating puts a batch into shared memory at once when it is made in a worker.
    return tuple(
        frames.padded(part) if isinstance(part[0], Frames) else default_collate(list(part))
        for part in zip(*samples, strict=True)
    )
