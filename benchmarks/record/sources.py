"""The data sets of the record: training, validation and test samples in memory."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from benchmarks.record.packages import AEON, EMOJI
from torch import Tensor
from torch.nn.functional import avg_pool2d

from equimodal import data
from equimodal.data.arrays import Arrays
from equimodal.data.folds import assigned
from equimodal.data.scaling import standardised

ARCHIVES = Path(__file__).parents[2].parent / "shared" / "data"
WORDS = 256  # of the names of emoji, by a hash
PICTURE = 16  # pixels of an emoji's side
TRAIN, VAL, TEST = range(3)
Parts = tuple[Arrays, Arrays, Arrays]


@lru_cache
def parts(name: str) -> Parts:
    """Return training, validation and test samples of a data set.

    Raises:
        SystemExit: its file is not here, or its package cannot be downloaded.
    """
    return SOURCES[name]()


def watch() -> Parts:
    """Accelerometer and gyroscope; every second window, so that it stays small."""
    found = data.load("watch")
    return tuple(each.part(torch.arange(0, len(each), 2)) for each in _splits(found))  # type: ignore[return-value]


def mfeat() -> Parts:
    """Six views of handwritten digits; every sixth sample, for with all of them nothing is left."""
    train, val, test = _splits(data.load("mfeat"))
    return train.part(torch.arange(0, len(train), 6)), val, test


def grid(slot: int, every: int = 1) -> Callable[[], Parts]:
    """Sound and lips of one word of some GRID sentences; sentences of the test set are unseen."""

    def found() -> Parts:
        kept = _archive("grid_words.npz")
        train, test = ((kept[f"slot_{of}"] == slot).nonzero()[0] for of in ("train", "test"))
        train = train[::every]
        names = np.unique(kept["y_train"][train])
        made = {}
        for name in ("audio", "video"):
            both = (kept[f"{name}_{of}"][rows] for of, rows in (("train", train), ("test", test)))
            made[name] = torch.from_numpy(np.concatenate([*both]).astype(np.float32))
        labels = [
            np.searchsorted(names, kept[f"y_{of}"][rows])
            for of, rows in (("train", train), ("test", test))
        ]
        return _parted(made, *map(torch.from_numpy, labels))

    return found


def avdigits() -> Parts:
    """Spoken and written digits, every second sample, at half the resolution.

    The speakers of the test set are unseen.
    """
    kept = _archive("avdigits.npz")
    made = {}
    for name in ("audio", "image"):
        both = [kept[f"{name}_{of}"][::2] for of in ("train", "test")]
        whole = torch.from_numpy(np.concatenate(both).astype(np.float32))
        made[name] = avg_pool2d(whole[:, None], 2)
    labels = (torch.from_numpy(kept[f"y_{of}"][::2]) for of in ("train", "test"))
    return _parted(made, *labels)


def emoji() -> Parts:
    """Pictures and names of emoji, and which group they belong to."""
    from PIL import Image

    listed, sheet = EMOJI.read(["package/emoji.json", f"package/img/twitter/sheets/{PICTURE}.png"])
    rows = [each for each in json.loads(listed) if each["category"] != "Component"]
    rows.sort(key=lambda each: each["sort_order"])
    whole = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGBA"), dtype=np.float32) / 255
    drawn = whole[..., :3] * whole[..., 3:] + 1 - whole[..., 3:]  # on white
    pictures, words = [], np.zeros((len(rows), WORDS), dtype=np.float32)
    for place, each in enumerate(rows):
        left, top = ((PICTURE + 2) * each[f"sheet_{axis}"] + 1 for axis in "xy")
        pictures.append(drawn[top : top + PICTURE, left : left + PICTURE].transpose(2, 0, 1))
        for word in each["short_name"].replace("-", "_").split("_"):
            words[place, crc32(word.encode()) % WORDS] += 1
    groups = sorted({each["category"] for each in rows})
    target = torch.tensor([groups.index(each["category"]) for each in rows])
    fold = assigned(target, 5)
    split = torch.where(fold == 0, TEST, torch.where(fold == 1, VAL, TRAIN))
    made = {"picture": torch.from_numpy(np.stack(pictures)), "name": torch.from_numpy(words)}
    return _of(made, target, split)


def motions() -> Parts:
    """Accelerometer and gyroscope of a smart watch: standing, walking, running, badminton.

    Every series of ten seconds is cut into windows of one; every fourth of a class is held out.
    """
    folder = "aeon/datasets/data/BasicMotions/BasicMotions"
    series, labels, counts = [], [], []
    for text in AEON.read([f"{folder}_TRAIN.ts", f"{folder}_TEST.ts"]):
        lines = [line for line in text.decode().splitlines() if line and line[0] not in "@#"]
        counts.append(len(lines))
        for line in lines:
            *channels, label = line.split(":")
            series.append([[float(value) for value in each.split(",")] for each in channels])
            labels.append(label.strip().lower())
    names = sorted(set(labels))
    target = torch.tensor([names.index(label) for label in labels])
    split = torch.full((len(labels),), TEST)
    for each in range(len(names)):
        own = (target[: counts[0]] == each).nonzero().flatten()
        split[own] = torch.where(torch.arange(len(own)) % 4 == 3, VAL, TRAIN)
    whole = torch.tensor(series)  # series, channels, 100 steps
    windows = whole.view(*whole.shape[:2], 10, 10).transpose(1, 2).flatten(0, 1)
    made = {"accelerometer": windows[:, :3], "gyroscope": windows[:, 3:]}
    return _of(made, target.repeat_interleave(10), split.repeat_interleave(10))


SOURCES: Mapping[str, Callable[[], Parts]] = {
    "watch": watch,
    "mfeat": mfeat,
    "GRID letters": grid(3),
    "GRID digits": grid(4, every=4),
    "AV digits": avdigits,
    "emoji": emoji,
    "motions": motions,
}


def _splits(found: data.Splits) -> Parts:
    return found.train, found.val, found.test


def _archive(name: str) -> Any:
    path = Path(os.environ.get("EQUIMODAL_ARCHIVES", ARCHIVES)) / name
    if not path.exists():
        raise SystemExit(
            f"{path}: not here; see docs/methods/results.md on what it holds, and set "
            "EQUIMODAL_ARCHIVES to the folder that has it"
        )
    return np.load(path)


def _parted(made: Mapping[str, Tensor], train: Tensor, test: Tensor) -> Parts:
    """A fifth of the training samples, of each class, is held out to choose by."""
    held = assigned(train, 5) == 0
    split = torch.where(held, VAL, TRAIN)
    return _of(
        made,
        torch.cat([train, test]).long(),
        torch.cat([split, torch.full((len(test),), TEST)]),
    )


def _of(made: Mapping[str, Tensor], target: Tensor, split: Tensor) -> Parts:
    whole = Arrays({n: standardised(x, split == TRAIN) for n, x in made.items()}, target.long())
    return tuple(whole.part((split == of).nonzero().flatten()) for of in (TRAIN, VAL, TEST))  # type: ignore[return-value]
