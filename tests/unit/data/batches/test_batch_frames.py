"""Which frames, which part of them, and how they look afterwards."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equimodal.data.batches import sound
from equimodal.data.batches.frames import (
    Frames,
    centre_box,
    in_each_part,
    middles,
    padded,
    random_box,
)
from equimodal.data.batches.transform import (
    MEAN,
    STD,
    Crops,
    cropped_at_once,
    cropped_one_by_one,
)
from equimodal.data.batches.view import View

GREY = 1.01  # of 255: on a CPU crops are resized in 8 bit
SIZES = [(256, 320), (320, 256), (20, 90), (90, 20), (24, 24)]


# ---------------------------------------------------------------------- which


@pytest.mark.parametrize(("stored", "parts"), [(75, 3), (10, 4), (3, 3), (1, 3), (2, 5), (7, 1)])
def test_frames_are_in_order_one_of_each_part_and_any_of_it(stored: int, parts: int) -> None:
    draw = random.Random(0)
    seen: list[set[int]] = [set() for _ in range(parts)]
    for _ in range(2000):
        chosen = in_each_part(stored, parts, draw)
        assert chosen == sorted(chosen)
        for part, place in enumerate(chosen):
            seen[part].add(place)
    for part, places in enumerate(seen):
        begin, end = part * stored / parts, (part + 1) * stored / parts
        assert places == set(range(math.floor(begin), math.ceil(end)))
        assert middles(stored, parts)[part] == math.floor((begin + end) / 2)


# ---------------------------------------------------------------------- which part


def box_by_hand(
    height: int, width: int, scale: tuple[float, float], draw: random.Random
) -> tuple[int, int, int, int]:
    """RandomResizedCrop.get_params of torchvision, retold."""
    for _ in range(10):
        target_area = draw.random() * (scale[1] - scale[0]) + scale[0]
        log_ratio = draw.random() * math.log((4 / 3) / (3 / 4)) + math.log(3 / 4)
        w = round(math.sqrt(target_area * height * width * math.exp(log_ratio)))
        h = round(math.sqrt(target_area * height * width / math.exp(log_ratio)))
        if 0 < w <= width and 0 < h <= height:
            i = math.floor(draw.random() * (height - h + 1))
            j = math.floor(draw.random() * (width - w + 1))
            return i, j, h, w
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        w, h = round(height * (4 / 3)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0), (0.5, 0.5)])
def test_boxes_are_drawn_as_by_hand(size: tuple[int, int], scale: tuple[float, float]) -> None:
    ours, by_hand = random.Random(1), random.Random(1)
    for _ in range(300):
        assert random_box(*size, scale, ours) == box_by_hand(*size, scale, by_hand)


def test_boxes_lie_anywhere_and_have_any_share_and_ratio() -> None:
    draw = random.Random(0)
    boxes = [random_box(256, 320, (0.08, 1.0), draw) for _ in range(4000)]
    shares = [h * w / (256 * 320) for _, _, h, w in boxes]
    assert min(shares) < 0.1
    assert max(shares) > 0.95
    for top, left, height, width in boxes:
        assert 0 <= top <= 256 - height
        assert 0 <= left <= 320 - width
    # Up to 0.4 of this frame any ratio fits, so that no share is rarer than another.
    few = [random_box(256, 320, (0.08, 0.4), draw) for _ in range(4000)]
    assert abs(sum(h * w / (256 * 320) < 0.24 for _, _, h, w in few) / len(few) - 0.5) < 0.03
    ratios = [math.log(w / h) for _, _, h, w in few]
    assert 0.27 < max(map(abs, ratios)) < math.log(4 / 3) + 0.02
    assert abs(sum(ratios) / len(ratios)) < 0.01
    small = [box for box in boxes if box[2] < 128 and box[3] < 160]
    assert {(t > 64, left > 80) for t, left, _, _ in small} == set(
        itertools.product((0, 1), (0, 1))
    )


def test_the_whole_frame_where_nothing_else_is_asked_for() -> None:
    assert random_box(24, 24, (1.0, 1.0), random.Random(3)) == (0, 0, 24, 24)
    assert centre_box(90, 20) == (35, 0, 20, 20)


# ---------------------------------------------------------------------- how they look


def batch(sizes: list[tuple[int, int]], count: int, scale: tuple[float, float]) -> Frames:
    generator, draw = torch.Generator().manual_seed(0), random.Random(0)
    return padded(
        [
            Frames(
                torch.randint(0, 256, (count, *size, 3), generator=generator, dtype=torch.uint8),
                torch.tensor(random_box(*size, scale, draw)),
                torch.tensor(number % 2 == 1),
            )
            for number, size in enumerate(sizes)
        ]
    )


def by_hand(frames: Frames, size: int) -> Tensor:
    """Cut, resize, mirror, frame by frame."""
    made = []
    for pixels, box, mirrored in zip(*frames, strict=True):
        top, left, height, width = box.tolist()
        clip = []
        for frame in pixels:
            part = frame[top : top + height, left : left + width].permute(2, 0, 1)[None].float()
            part = F.interpolate(part / 255, (size, size), mode="bilinear", antialias=False)
            clip.append(part[0].flip(2) if mirrored else part[0])
        made.append(torch.stack(clip))
    return torch.stack(made)


@pytest.mark.parametrize(("crop", "off"), [(cropped_at_once, 0.02), (cropped_one_by_one, GREY)])
@pytest.mark.parametrize("size", [16, 33, 112])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (1.0, 1.0)])
def test_crops_equal_those_by_hand(
    crop: object, off: float, size: int, scale: tuple[float, float]
) -> None:
    frames = batch([*SIZES, (256, 320)], 2, scale)  # noise: neighbours share nothing
    found = crop(frames, size)  # type: ignore[operator]
    torch.testing.assert_close(found, 255 * by_hand(frames, size), rtol=0, atol=off)


def test_frames_are_normalised_with_channels_first_then_time() -> None:
    frames = batch(SIZES, 3, (0.3, 1.0))
    found = Crops(20)(frames)
    assert found.shape == (5, 3, 3, 20, 20)
    raw = by_hand(frames, 20)
    for channel, frame in itertools.product(range(3), range(3)):
        expected = (raw[:, frame, channel] - MEAN[channel]) / STD[channel]
        off = GREY / 255 / STD[channel]
        torch.testing.assert_close(found[:, channel, frame], expected, rtol=0, atol=off)


def test_what_is_beside_a_smaller_clip_is_never_seen() -> None:
    frames = batch(SIZES, 1, (0.08, 1.0))
    beside = torch.ones_like(frames.pixels, dtype=torch.bool)
    for place, (height, width) in zip(beside, SIZES, strict=True):
        place[:, :height, :width] = False
    dirty = frames._replace(pixels=frames.pixels.masked_fill(beside, 255))
    assert not torch.equal(dirty.pixels, frames.pixels)
    for crop in (cropped_at_once, cropped_one_by_one):
        assert torch.equal(crop(dirty, 24), crop(frames, 24))


# ---------------------------------------------------------------------- sound


@pytest.mark.parametrize("length", [1, 4, 9, 10, 11, 35])
def test_sound_is_cut_or_repeated(length: int) -> None:
    import numpy as np

    pcm = np.arange(10, dtype=np.int16)
    expected = [number % 10 for number in range(length)]
    assert sound.fit(pcm, length).tolist() == expected
    assert sound.fit(pcm, length).dtype == np.int16
    starts = {sound.random_start(10, length, random.Random(seed)) for seed in range(300)}
    assert starts == set(range(max(10 - length, 0) + 1))


def test_a_view_of_one_frame_is_the_default() -> None:
    assert View().frames == 1
