"""Damaged files in their hundreds: no run ends, nothing hangs, and every file is accounted for."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from support.clips import write_clip
from support.odd_clips import camera, film, photographed, tone

FILES = 500
LIMIT = 20.0  # seconds that a clip may take
REASONS = {
    "empty file",
    "unreadable",
    "no sound",
    "no video",
    "truncated",
    "starts after its end",
    "decoder crashed",
}


def seeds(folder: Path) -> list[Path]:
    """Ten small files, each of another kind."""
    folder.mkdir()
    small = {"seconds": 0.4, "size": (32, 24), "rate": 44_100}
    made = [
        write_clip(folder / f"clip{suffix}", **small)
        for suffix in (".mp4", ".mov", ".mkv", ".flv", ".mpg", ".ts", ".avi")
    ]
    made.append(write_clip(folder / "fast.mp4", **small, options={"movflags": "faststart"}))
    made.append(
        camera(folder / "camera.avi", [photographed(n, 6, (32, 24)) for n in range(3)], (24, 32))
    )
    made.append(film(folder / "pauses.mkv", [0.0, 0.04, 2.0], sound=[tone(440, 2)], size=(32, 32)))
    return made


def damaged(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Flip bytes, cut, put in others, or append another file."""
    kind = draw.randrange(6)
    changed = bytearray(content)
    if kind == 0:
        for _ in range(draw.randrange(1, 60)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    elif kind == 1:
        for _ in range(draw.randrange(1, 20)):
            changed[draw.randrange(min(len(changed), 500))] = draw.randrange(256)
    elif kind == 2:
        del changed[draw.randrange(len(changed)) :]
    elif kind == 3:
        begin = draw.randrange(len(changed))
        del changed[begin : begin + draw.randrange(1, 2000)]
    elif kind == 4:
        begin = draw.randrange(len(changed))
        changed[begin:begin] = draw.randbytes(draw.randrange(1, 2000))
    else:
        changed = changed[: draw.randrange(len(changed))] + other[draw.randrange(len(other)) :]
    return bytes(changed)


def test_five_hundred_damaged_files(tmp_path: Path) -> None:
    draw = random.Random(0)
    contents = [(path.suffix, path.read_bytes()) for path in seeds(tmp_path / "seeds")]
    source = tmp_path / "clips"
    source.mkdir()
    rows = []
    for number in range(FILES):
        suffix, content = contents[number % len(contents)]
        name = f"d{number:03d}{suffix}"
        span = ("", "") if number % 3 else ("0.1", "0.3")
        (source / name).write_bytes(damaged(content, draw.choice(contents)[1], draw))
        rows.append((name, "ab"[number // 10 % 2], "test" if number % 5 == 4 else "train", *span))
    for number in range(20):
        (source / f"good{number}.mp4").write_bytes(contents[0][1])
        rows.append(
            (f"good{number}.mp4", "ab"[number % 2], "test" if number > 13 else "train", "", "")
        )
    with (source / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "start", "end"), *rows])
    out = tmp_path / "out"
    begun = time.monotonic()
    told = subprocess.run(
        [
            *(sys.executable, "-m", "equimodal", "prepare", "manifest", "--out", str(out)),
            *("--source", str(source / "clips.csv"), "--side", "24", "--workers", "2"),
            *("--allow-missing", "0.95", "--time-limit", str(LIMIT)),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert told.returncode == 0, told.stderr
    assert "Traceback" not in told.stderr + told.stdout
    assert time.monotonic() - begun < 200
    with (out / "failures.csv").open(newline="") as file:
        failures = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    kept = set()
    for shard in sorted((out / "data").glob("*.parquet")):
        kept |= set(pq.read_table(shard, columns=["id"])["id"].to_pylist())
    names = {f"{row[0]}@0.1-0.3" if row[3] else row[0] for row in rows}
    assert kept | set(failures) == names
    assert not kept & set(failures)
    assert {f"good{number}.mp4" for number in range(20)} <= kept
    assert {reason.split(":")[0] for reason in failures.values()} <= REASONS
    assert not [reason for reason in failures.values() if "Error" in reason], "all have a name"
    assert 50 < len(failures) < FILES
