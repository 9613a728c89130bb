"""AVE's published features, a class for every second: what AVGA and PSP are trained on."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equimodal.data import Arrays, Card, Splits
from equimodal.errors import SetupError

NAME = "ave-features"
FILES = ("audio.npy", "visual.npy", "labels.npy", "train.npy", "val.npy", "test.npy")
LAYOUT = (
    "audio.npy (N, T, D), visual.npy (N, T, 7, 7, D), labels.npy (N, T) or one-hot (N, T, C), and "
    "train.npy, val.npy, test.npy with the numbers of their videos"
)


class Segments(Arrays):
    """Samples with a class for each of their segments.

    Args:
        features: for each modality a tensor of shape ``(N, T, ...)``.
        target: int64, shape ``(N, T)``.
        ids: int64, shape ``(N,)``.
    """

    def __init__(self, features: dict[str, Tensor], target: Tensor, ids: Tensor) -> None:
        super().__init__(features, target[:, 0], ids=ids)
        self.target = target

    def joined(self, other: Arrays) -> Segments:
        """Return these samples and then those of another split."""
        features = {
            name: torch.cat([part, other.features[name]]) for name, part in self.features.items()
        }
        target = torch.cat([self.target, other.target])
        return Segments(features, target, torch.cat([self.ids, other.ids]))


def load_features(folder: Path) -> Splits[Segments]:
    """Return the features in a folder of arrays as a data set in three splits.

    Raises:
        SetupError: a file is missing, or the arrays do not fit each other.
    """
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise SetupError(f"{folder}: no {', '.join(missing)}: expected {LAYOUT}")
    stats = [(folder / name).stat() for name in FILES]
    return _loaded(folder.resolve(), tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=1)  # they are gigabytes, and several models are trained on them
def _loaded(folder: Path, written: tuple[tuple[int, int], ...]) -> Splits[Segments]:
    audio, visual, labels, *orders = (np.load(folder / name, mmap_mode="r") for name in FILES)
    classes = labels.argmax(axis=2) if labels.ndim == 3 else labels
    shape = classes.shape
    if classes.ndim != 2 or audio.shape[:2] != shape or visual.shape[:2] != shape:
        arrays = {"audio": audio, "visual": visual, "labels": labels}
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise SetupError(f"{folder}: expected {LAYOUT}, found {found}")
    count = labels.shape[2] if labels.ndim == 3 else int(classes.max()) + 1

    def part(order: Any) -> Segments:
        rows = np.array(order, dtype=np.int64)
        if not len(rows) or rows.min() < 0 or rows.max() >= len(audio):
            raise SetupError(f"{folder}: expected numbers of videos from 0 to {len(audio) - 1}")
        features = {
            "audio": torch.from_numpy(np.asarray(audio[rows], dtype=np.float32)),
            "visual": torch.from_numpy(np.asarray(visual[rows], dtype=np.float32)),
        }
        target = torch.from_numpy(np.asarray(classes[rows], dtype=np.int64))
        return Segments(features, target, torch.from_numpy(rows))

    train, val, test = map(part, orders)
    card = Card(
        name=NAME,
        title=f"features of {len(audio):,} videos in {folder}",
        content=f"audio {audio.shape[1:]}, visual {visual.shape[1:]}; {count} classes a second.",
        splits=f"train {len(train):,}, val {len(val):,}, test {len(test):,}: as listed.",
        source="https://github.com/YapengTian/AVE-ECCV18",
        authors="Y. Tian, J. Shi, B. Li, Z. Duan, C. Xu",
        licence="not stated.",
        citation="Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018",
        changes="none.",
        caution="",
    )
    names = tuple(map(str, range(count)))
    return Splits(train, val, test, names, card, _digest(folder))


def _digest(folder: Path) -> str:
    """Return a digest of the lists and the labels: the features are too large to read twice."""
    digest = hashlib.sha256()
    for name in FILES[2:]:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
