"""Epochs of prepared clips: the same wherever they are read, once each, as they are stored."""

from __future__ import annotations

import copy
import io
import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import equimodal as eq
from equimodal import testing
from equimodal.data import Splits
from equimodal.data.batches.clips import Clips
from equimodal.data.batches.frames import Frames
from equimodal.data.batches.read import read
from equimodal.data.batches.stream import stream
from support.prepared import RATE, Made, clips, picture, prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def splits(folder: Path) -> Splits[Clips]:
    return read(folder)


def flat(batch: Iterable[Any]) -> list[Tensor]:
    """Every tensor of a raw batch."""
    return [t for part in batch for t in (part if isinstance(part, tuple) else (part,))]


def epoch(loader: Iterable[Any]) -> list[list[Tensor]]:
    """A pass over a loader, copied out of memory that is shared with its workers."""
    return [[tensor.clone() for tensor in flat(batch)] for batch in loader]


def same(one: list[list[Tensor]], other: list[list[Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for batches in zip(one, other, strict=True)
        for a, b in zip(*batches, strict=True)
    )


# ---------------------------------------------------------------------- what is in a sample


def test_what_it_says_of_itself(splits: Splits[Clips]) -> None:
    train = splits.train
    assert train.modalities == splits.modalities == ("audio", "visual")
    assert train.ids == list(train.names) == [f"a{number:03d}" for number in range(19)]
    assert train.target.tolist() == [number % 3 for number in range(19)]
    assert train.groups[0] == train.groups[1] != train.groups[2]
    every = [set(part.groups.tolist()) for part in (train, splits.val, splits.test)]
    assert sum(map(len, every)) == len(set.union(*every)), "numbers mean the same in all splits"
    assert train.classes == splits.classes == ("calm", "glad", "sad")
    length = max(1200 + 37 * number for number in range(7))
    assert train.shapes == {"audio": (1, 65, 1 + length // 100), "visual": (3, 2, 16, 16)}
    assert repr(train) == "Clips(19 samples: audio (1, 65, 15), visual (3, 2, 16, 16))"
    assert "licence   none" in str(splits.card)


def test_evaluation_is_what_is_stored(splits: Splits[Clips]) -> None:
    for number, made in enumerate(clips(9, "b", 2)):
        audio, visual, target = splits.val[number]
        assert target == made.label
        assert made.sound is not None
        assert audio.tolist() == np.resize(made.sound, len(audio)).tolist()
        assert isinstance(visual, Frames)
        assert made.frames is not None
        for pixels, stored in zip(visual.pixels, (made.frames[1], made.frames[3]), strict=True):
            decoded = Image.open(io.BytesIO(picture(stored, "JPEG"))).convert("RGB")
            assert np.array_equal(pixels, np.array(decoded))
        height, width = visual.pixels.shape[1:3]
        side = min(height, width)
        expected = [(height - side) // 2, (width - side) // 2, side, side]
        assert visual.box.tolist() == expected
        assert not visual.mirrored


def test_training_draws_frames_crops_and_parts_of_longer_sound(folder: Path) -> None:
    train = read(folder, seconds=0.1).train
    sounds, frames, boxes, mirrored = set(), set(), set(), set()
    for number in range(12):
        train.set_epoch(number)
        audio, visual, _ = train[3]
        assert len(audio) == RATE // 10
        assert isinstance(visual, Frames)
        sounds.add(tuple(audio.tolist()))
        frames |= {tuple(visual.pixels[0].flatten().tolist())}
        boxes.add(tuple(visual.box.tolist()))
        mirrored.add(bool(visual.mirrored))
    assert len(sounds) == len(boxes) == 12
    assert len(frames) > 1
    assert mirrored == {False, True}


def test_all_frames_of_a_clip_are_cut_and_mirrored_alike(tmp_path: Path) -> None:
    made = clips(8, "a")
    for each in made:
        assert each.frames is not None
        each.frames = each.frames[:1] * 4  # so that what differs was not done alike
    splits = {"train": made, "val": clips(1, "b"), "test": clips(1, "c")}
    train = read(prepared(tmp_path, splits), frames=3).train
    (batch,) = train.loader(8)
    assert len({tuple(box.tolist()) for box in batch[1].box}) > 1
    visual = train.transform(batch)[1]
    assert torch.equal(visual[:, :, :1].expand_as(visual), visual)


def test_a_sample_does_not_depend_on_its_neighbours(folder: Path, tmp_path: Path) -> None:
    other = prepared(
        tmp_path,
        {"train": clips(19, "a", 1)[::-2], "val": clips(1, "b"), "test": clips(1, "c")},
        shard_size=3,
    )
    whole, half = read(folder).train, read(other).train
    audio_only = read(folder, modalities=["visual"]).train
    for place, name in enumerate(half.ids):
        original = whole.ids.index(name)
        assert same([flat(half[place])], [flat(whole[original])])
        assert same([flat(audio_only[original])], [flat(whole[original])[1:]])


def test_clips_of_different_sizes_are_one_batch(splits: Splits[Clips]) -> None:
    (batch,) = splits.train.loader(19)
    inputs = splits.train.transform(batch)
    assert len({tuple(splits.train[i][1].pixels.shape) for i in range(4)}) == 2
    for number in range(19):
        alone = splits.train.transform(Clips.collate([splits.train[number]]))
        for found, expected in zip(inputs, alone, strict=True):
            torch.testing.assert_close(found[number], expected[0], rtol=1e-5, atol=1e-5)


def test_pictures_are_grey_from_0_to_1(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = {
        split: [
            Made(f"{split}{n}", n % 3, f"{split}{n}", clip.sound, None, rng.integers(0, 256, (28, 28), np.uint8))
            for n, clip in enumerate(clips(4, "x"))
        ]
        for split in ("train", "val", "test")
    }  # fmt: skip
    splits = read(prepared(tmp_path, made), modalities=["image", "audio"])
    assert splits.train.shapes["image"] == (1, 28, 28)
    (batch,) = splits.train.loader(4)
    image, audio, _ = splits.train.transform(batch)
    expected = np.stack([each.picture for each in made["train"] if each.picture is not None]) / 255
    np.testing.assert_allclose(image[:, 0], expected, rtol=0, atol=1e-6)
    assert audio.shape[0] == 4


# ---------------------------------------------------------------------- the transform


def test_the_transform_stays_on_the_device_and_in_float32(splits: Splits[Clips]) -> None:
    transform = splits.train.transform
    (batch,) = splits.train.loader(19)
    expected = transform(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = transform(batch)
    for made in (under_autocast, transform.bfloat16()(batch), transform.eval()(batch)):
        assert same([list(made)], [list(expected)])
    assert [made.dtype for made in expected] == [torch.float32, torch.float32, torch.int64]
    assert transform.state_dict() == {}
    away = transform(batch, "meta")  # a device without numbers, on any machine
    assert [(made.device.type, made.shape) for made in away] == [
        ("meta", made.shape) for made in expected
    ]


def test_the_transform_gives_torch_its_threads_back(splits: Splits[Clips]) -> None:
    (batch,) = splits.train.loader(19)
    torch.set_num_threads(3)
    try:
        splits.train.transform(batch)
        assert torch.get_num_threads() == 3
        with pytest.raises(AttributeError):
            splits.train.transform((batch[1], *batch[1:]))  # frames are no sound
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


# ---------------------------------------------------------------------- epochs


def workers() -> list[dict[str, Any]]:
    persistent = {"persistent_workers": True}
    return [
        {"workers": 1, "multiprocessing_context": "fork"},
        {"workers": 2, "multiprocessing_context": "fork", **persistent},
        {"workers": 2, "multiprocessing_context": "spawn", **persistent},
    ]


@pytest.mark.parametrize("settings", workers(), ids=str)
def test_epochs_are_the_same_for_any_workers(
    splits: Splits[Clips], settings: dict[str, Any]
) -> None:
    alone = splits.train.loader(4, shuffle=True, seed=3)
    epochs = [epoch(alone) for _ in range(4)]
    loader = splits.train.loader(4, shuffle=True, seed=3, **settings)
    assert same(epoch(loader), epochs[0])
    assert same(epoch(loader), epochs[1])
    loader.sampler.set_epoch(0)
    assert same(epoch(loader), epochs[0])
    loader.sampler.go_on(2, 8)
    assert same(epoch(loader), epochs[2][2:])
    assert same(epoch(loader), epochs[3])


def test_other_epochs_and_other_seeds_differ_in_order_and_in_crops(splits: Splits[Clips]) -> None:
    loader = splits.train.loader(19, shuffle=True, seed=3)
    other = splits.train.loader(19, shuffle=True, seed=4)
    passes = [epoch(loader)[0], epoch(loader)[0], epoch(other)[0]]
    for one in range(3):
        for two in range(one):
            for part in (0, 1, 2, 3):  # sound, pixels, boxes, mirroring
                assert not torch.equal(passes[one][part], passes[two][part])
    # In one order, crops still differ.
    as_they_are = splits.train.loader(19)
    first, second = epoch(as_they_are)[0], epoch(as_they_are)[0]
    assert torch.equal(first[-1], second[-1])
    assert not torch.equal(first[2], second[2])


def test_loaders_do_not_disturb_each_other_nor_the_global_generator(splits: Splits[Clips]) -> None:
    expected = [epoch(splits.train.loader(4, shuffle=True, seed=s)) for s in (0, 1)]
    before = torch.get_rng_state()
    loaders = [splits.train.loader(4, shuffle=True, seed=s) for s in (0, 1)]
    both = [(flat(a), flat(b)) for a, b in zip(*loaders, strict=True)]
    assert same([a for a, _ in both], expected[0])
    assert same([b for _, b in both], expected[1])
    assert torch.equal(before, torch.get_rng_state())


def test_a_loader_of_the_users_own_gives_the_same(splits: Splits[Clips]) -> None:
    train = copy.copy(splits.train)
    ours = splits.train.loader(4)
    theirs: DataLoader[Any] = DataLoader(train, 4, collate_fn=Clips.collate, num_workers=1)
    for number in range(2):
        train.set_epoch(number)
        assert same(epoch(theirs), epoch(ours))


def test_evaluation_is_the_same_every_time_and_complete(splits: Splits[Clips]) -> None:
    loader = splits.test.loader(4)
    first = epoch(loader)
    assert [len(batch[-1]) for batch in first] == [4, 4, 3]
    assert torch.cat([batch[-1] for batch in first]).tolist() == splits.test.target.tolist()
    assert same(epoch(loader), first)
    loader.sampler.set_epoch(7)
    assert same(epoch(loader), first)
    assert same(epoch(splits.test.loader(4, seed=5, workers=1)), first)


def test_ranks_together_read_the_batches_of_one_process(splits: Splits[Clips]) -> None:
    alone = splits.train.loader(8, shuffle=True, seed=3, rank=0, world=1)
    parts = [splits.train.loader(4, shuffle=True, seed=3, rank=rank, world=2) for rank in range(2)]
    whole, first, second = epoch(alone), *map(epoch, parts)
    assert len(first) == len(second) == 3
    for large, *small in zip(whole, first, second, strict=True):
        sounds = Counter(tuple(row.tolist()) for part in small for row in part[0])
        expected = Counter(tuple(row.tolist()) for row in large[0])
        # One of 19 remains; it is in the last batch of one process.
        assert sounds == expected or (not sounds - expected and len(large[0]) == 3)


def on_a_rank(rank: int, folder: str) -> dict[str, Any]:
    splits = read(folder)  # both at once, and both the first
    loader = splits.train.loader(4, shuffle=True, seed=3)
    told = stream(folder, seed=3, buffer=5)
    return {
        "train": [epoch(loader) for _ in range(2)],
        "test": [clip for batch in splits.test.loader(4) for clip in batch[0].tolist()],
        # A worker is started anew, and cannot find out the rank by itself.
        "stream": [clip for batch in told.loader(4, workers=1) for clip in batch[0].tolist()],
        "stream of test": [
            clip for batch in stream(folder, "test").loader(4) for clip in batch[0].tolist()
        ],
    }


def test_two_processes_find_out_their_rank_and_may_both_be_the_first(
    splits: Splits[Clips], tmp_path: Path
) -> None:
    folder = prepared(tmp_path)
    first, second = testing.spawn(on_a_rank, str(folder))
    assert not list((folder / ".cache").glob("*.partial"))
    for rank, found in enumerate((first, second)):
        loader = splits.train.loader(4, shuffle=True, seed=3, rank=rank, world=2)
        assert all(same(epoch(loader), each) for each in found["train"])
    stored = [flat(splits.test[i])[0].tolist() for i in range(11)]
    for name in ("test", "stream of test"):
        assert len(first[name] + second[name]) == 11
        assert sorted(first[name] + second[name]) == sorted(stored)
    assert len(first["stream"]) == len(second["stream"]) == 9  # of 19
    train = [flat(splits.train[i])[0].tolist() for i in range(19)]
    both = first["stream"] + second["stream"]
    assert all(clip in train for clip in both)
    assert len({tuple(clip) for clip in both}) == 18


# ---------------------------------------------------------------------- other processes, memory


def test_it_is_cheap_to_hand_to_another_process(splits: Splits[Clips]) -> None:
    loader = splits.train.loader(19)
    epoch(loader)  # now its files are open
    assert isinstance(loader.dataset, Clips)
    loader.dataset.set_epoch(5)
    packed = pickle.dumps(loader.dataset)
    assert len(packed) < 8000
    for twin in (pickle.loads(packed), copy.deepcopy(loader.dataset)):
        assert twin.epoch == 5
        assert same([flat(twin[7])], [flat(loader.dataset[7])])
        twin.set_epoch(6)
        assert loader.dataset.epoch == 5


def test_reading_leaves_the_files_where_they_are(folder: Path) -> None:
    before = pa.total_allocated_bytes()
    train = read(folder).train
    held = [train.stored[number] for number in range(19)]
    size = sum(len(file) for clip in held for files in clip.pieces.values() for file in files)
    assert size > 100_000
    assert pa.total_allocated_bytes() - before < size / 10


# ---------------------------------------------------------------------- methods that resample


class Model(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Flatten(), nn.LazyLinear(8))
        self.visual = nn.Sequential(nn.Flatten(), nn.LazyLinear(8))
        self.head = nn.Linear(16, 3)
        self(*(torch.zeros(1, *shape) for shape in shapes.values()))

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.audio(audio), self.visual(visual)], dim=1))
        return logits


@pytest.mark.parametrize("kind", [eq.ModalityValuation, eq.SampleValuation])
def test_methods_that_resample_see_the_samples_of_the_epoch(
    splits: Splits[Clips], kind: Any
) -> None:
    train = splits.train
    torch.manual_seed(0)
    model = Model(train.shapes)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    loader = train.loader(8, shuffle=True, seed=3)

    def forward(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        *inputs, target = train.transform(batch)
        return model(*inputs), target

    balancer = eq.Balancer(
        kind(warm_up=1),
        model,
        {"audio": model.audio, "visual": model.visual},
        model.head,
        optimizer,
        forward=forward,
        train_loader=loader,
    )
    by_hand = train.loader(19, seed=3)
    resampled = 0
    for number in range(3):
        (expected,) = epoch(by_hand)
        for batch in balancer.batches(loader):
            indices = range(0) if balancer.batch is None else balancer.batch[0].tolist()
            resampled += len(indices)
            for found, all_of_it in zip(flat(batch), expected, strict=True):
                for row, index in zip(found, indices, strict=False):
                    # Pixels may be padded less than in the batch of all.
                    whole = all_of_it[index]
                    if row.ndim == 4:
                        whole = whole[:, : row.shape[1], : row.shape[2]]
                    assert torch.equal(row, whole), (number, index)
            balancer.backward(balancer.loss(*forward(model, batch)))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
    assert resampled >= 2 * 19
