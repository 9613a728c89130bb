"""Prepared folders by hand: what `equimodal prepare` would write, of tiny made-up clips."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from equimodal.data.fingerprint import fingerprint

RATE = 8000
CLASSES = ("calm", "glad", "sad")
VIEW: dict[str, Any] = {
    "seconds": None,
    "spectrogram": "log-stft",
    "n_fft": 128,
    "hop": 100,
    "mels": 16,
    "frames": 2,
    "size": 16,
    "scale": [0.3, 1.0],
    "flip": 0.5,
}


@dataclass
class Made:
    """A clip: sound int16, frames uint8 (H, W, 3) or a picture uint8 (H, W)."""

    id: str
    label: int
    group: str
    sound: np.ndarray | None
    frames: list[np.ndarray] | None = None
    picture: np.ndarray | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def clips(count: int, prefix: str, seed: int = 0, frames: int = 5) -> list[Made]:
    """Random clips, of different lengths and sizes; clips 0 and 1 are of one group, and so on."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        height, width = (20, 32) if number % 3 else (28, 24)
        made.append(
            Made(
                f"{prefix}{number:03d}",
                number % len(CLASSES),
                f"{prefix}speaker{number // 2}",
                rng.integers(-9000, 9000, 1200 + 37 * (number % 7)).astype(np.int16),
                [
                    np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)[
                        :height, :width
                    ]
                    for _ in range(frames)
                ],
            )
        )
    return made


def wav(pcm: np.ndarray, rate: int = RATE) -> bytes:
    """A WAV file: 16 bit, mono."""
    data = pcm.astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1,
                       rate, 2 * rate, 2, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", len(data)) + data


def picture(pixels: np.ndarray, kind: str) -> bytes:
    """A file of a picture, of the kind that Pillow calls "JPEG" or "PNG"."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=95)
    return file.getvalue()


def prepared(
    folder: Path,
    splits: Mapping[str, Sequence[Made]] | None = None,
    *,
    shard_size: int = 8,
    view: Mapping[str, Any] | None = None,
    spoil: Any = None,
    name: str = "tiny",
    protocol: str = "by hand",
) -> Path:
    """Write a prepared folder.

    Args:
        folder: where.
        splits: 19, 9 and 11 random clips by default, no multiples of anything.
        shard_size: rows of a shard.
        view: settings that differ from `VIEW`.
        spoil: called with every row before it is stored.
        name: of the data set.
        protocol: how its splits were made.
    """
    splits = splits or {
        "train": clips(19, "a", 1),
        "val": clips(9, "b", 2),
        "test": clips(11, "c", 3),
    }
    first = next(iter(splits.values()))[0]
    kinds = {
        name: kind
        for name, kind, there in (
            ("audio", "sound", first.sound is not None),
            ("visual", "frames", first.frames is not None),
            ("image", "picture", first.picture is not None),
        )
        if there
    }
    described: dict[str, Any] = {}
    for split, made in splits.items():
        shards = []
        count = -(-len(made) // shard_size)
        for index in range(count):
            part = made[index * shard_size : (index + 1) * shard_size]
            path = folder / f"data/{split}-{index:05d}-of-{count:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [_row(each) for each in part]
            for row in rows:
                if spoil:
                    spoil(row)
            pq.write_table(pa.Table.from_pylist(rows, _schema(first)), path, row_group_size=3)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            shards.append(
                {"file": str(path.relative_to(folder)), "rows": len(part), "sha256": digest}
            )
        described[split] = {"planned": len(made), "rows": len(made), "shards": shards}
    members = {split: [(each.id, each.label) for each in made] for split, made in splits.items()}
    about = {"source": "made up", "licence": "none"}
    longest = max((len(c.sound) for c in splits["train"] if c.sound is not None), default=0) / RATE
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "format": 1,
                "name": name,
                "classes": CLASSES,
                "protocol": protocol,
                "modalities": kinds,
                "rates": {name: RATE for name, kind in kinds.items() if kind == "sound"},
                "recipe": {"fps": 5.0, "side": 20, "quality": 95, "rate": RATE},
                "view": {**VIEW, **(view or {})},
                "seconds": {name: longest for name, kind in kinds.items() if kind == "sound"},
                "splits": described,
                "failures": 0,
                "fingerprint": fingerprint(name, CLASSES, members),
                "about": about,
                "versions": {"equimodal": "by hand"},
            }
        )
    )
    return folder


def _row(made: Made) -> dict[str, Any]:
    row: dict[str, Any] = {"id": made.id, "label": made.label, "group": made.group}
    if made.sound is not None:
        row["audio"] = {"bytes": wav(made.sound), "path": None}
    if made.frames is not None:
        row["visual"] = [{"bytes": picture(each, "JPEG"), "path": None} for each in made.frames]
    if made.picture is not None:
        row["image"] = {"bytes": picture(made.picture, "PNG"), "path": None}
    return {**row, **made.columns}


def _schema(first: Made) -> pa.Schema:
    features: dict[str, Any] = {
        "id": datasets.Value("string"),
        "label": datasets.ClassLabel(names=list(CLASSES)),
        "group": datasets.Value("string"),
    }
    if first.sound is not None:
        features["audio"] = datasets.Audio(decode=False)
    if first.frames is not None:
        features["visual"] = datasets.List(datasets.Image(decode=False))
    if first.picture is not None:
        features["image"] = datasets.Image(decode=False)
    for name, value in first.columns.items():
        features[name] = datasets.Value("string" if isinstance(value, str) else "float64")
    return datasets.Features(features).arrow_schema
