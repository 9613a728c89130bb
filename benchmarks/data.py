"""What preparing costs, what reading prepared clips gains, and what it keeps in memory.

    python benchmarks/data.py --source RAW/grid [--repeats N] [--only preparing|reading|memory]

The clips are whole sentences of GRID (3 s, 360x288, 25 frames a second, 44.1 kHz), seen as OGM-GE
sees CREMA-D: one frame out of three, randomly cropped to 224x224 and mirrored, and the
log-magnitude spectrogram of 3 s at 22,050 Hz, 257x188, in float32.

- preparing: clips a second of `prepare` with one worker and with one for each core, start of the
  workers included.
- reading: samples a second of an epoch, decoded in workers, collated and transformed, against raw
  files item by item in one process: PyAV decodes the video up to the frame that was drawn and all
  of the sound, then that one item is transformed, in one thread of torch, which is faster for it.
  Both take turns; the ratio is the median over the turns. Where others use the machine, the cores
  that a way of reading got are fewer than its processes could use, and processor time says more.
- memory: the most that an epoch adds to a fresh process, of the data set and of ten times as many
  clips. Anonymous memory is what the process holds; file pages are the memory-mapped shards, which
  the system takes back when it needs the room.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from equimodal.data.batches.frames import in_each_part, random_box
from equimodal.data.batches.read import read
from equimodal.data.batches.transform import MEAN, STD
from equimodal.data.fingerprint import fingerprint
from equimodal.data.layouts import Clip, CremaD, Frames, Listing, Piece, Sound
from equimodal.data.preparing import prepare

BAR = 10  # times as many samples a second as from raw files
BATCHES = (64, 32)  # a batch of 64 needs so much memory that it is given back every time
VIEW = CremaD.view
SHARD = 32


def listing(source: Path, times: int = 1) -> Listing:
    """Return the sentences of GRID below a folder as clips, each so many times."""
    files = sorted(source.rglob("*.mpg"))
    names = sorted({file.stem[0] for file in files})
    clips = []
    for number in range(len(files) * times):
        file = files[number % len(files)]
        path = str(file.relative_to(source))
        # Of every ten all but two for training.
        split = {8: "val", 9: "test"}.get(number % 10, "train")
        pieces: dict[str, Piece] = {"audio": Sound(path), "visual": Frames(path)}
        clips.append(Clip(f"{file.stem}-{number}", file.stem[0], split, pieces, str(number)))
    return Listing("grid-sentences", source, tuple(clips), tuple(names), "every tenth")


def preparing(source: Path, out: Path, workers: int) -> float:
    """Prepare all clips, and return how many a second."""
    clips = listing(source)
    start = time.perf_counter()
    prepare(clips, out, CremaD.recipe, VIEW, workers=workers, shard_size=SHARD)
    return len(clips.clips) / (time.perf_counter() - start)


def repeated(folder: Path, out: Path, times: int) -> Path:
    """Write a prepared folder with so many times the clips, of other ids."""
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    told = json.loads((folder / "dataset.json").read_text())
    (out / "data").mkdir(parents=True)
    members: dict[str, Any] = {}
    for split, of_split in told["splits"].items():
        shards: list[dict[str, Any]] = []
        for turn in range(times):
            for shard in of_split["shards"]:
                table = pq.read_table(folder / shard["file"])
                ids = pa.array([f"{each}-{turn}" for each in table["id"].to_pylist()])
                table = table.set_column(0, table.schema.field("id"), ids)
                file = f"data/{split}-{len(shards):05d}.parquet"
                pq.write_table(table, out / file, row_group_size=16, compression="none")
                digest = hashlib.sha256((out / file).read_bytes()).hexdigest()
                shards.append({"file": file, "rows": len(table), "sha256": digest})
        told["splits"][split]["shards"] = shards
        rows = pq.read_table([out / shard["file"] for shard in shards], columns=["id", "label"])
        members[split] = list(
            zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)
        )
    told["fingerprint"] = fingerprint(told["name"], told["classes"], members)
    (out / "dataset.json").write_text(json.dumps(told))
    return out


# ---------------------------------------------------------------------- raw files


def raw_item(path: Path, draw: random.Random) -> tuple[Tensor, Tensor]:
    """Decode and transform one file, as loaders in public code do."""
    av: Any = import_module("av")
    np: Any = import_module("numpy")
    image: Any = import_module("PIL.Image")
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        (wanted,) = in_each_part(75, 1, draw)
        frame = next(f for number, f in enumerate(container.decode(video)) if number == wanted)
        picture = frame.to_image()
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", CremaD.recipe.rate)
        heard = [
            part.to_ndarray()[0]
            for sound in container.decode(audio=0)
            for part in resampler.resample(sound)
        ]
    top, left, height, width = random_box(picture.height, picture.width, VIEW.scale, draw)
    picture = picture.resize(
        (VIEW.size, VIEW.size), image.BILINEAR, (left, top, left + width, top + height)
    )
    if draw.random() < VIEW.flip:
        picture = picture.transpose(image.FLIP_LEFT_RIGHT)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    visual = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    pcm = np.resize(np.concatenate(heard), int(3 * CremaD.recipe.rate))
    transformed: Tensor = torch.stft(
        torch.from_numpy(pcm).float() / 2**15,
        VIEW.n_fft,
        VIEW.hop,
        window=torch.hann_window(VIEW.n_fft),
        pad_mode="constant",
        return_complex=True,
    )
    return (transformed.abs() + 1e-7).log()[None], visual[:, None]


def raw(source: Path, count: int) -> int:
    """Read so many raw files in batches."""
    files, draw = sorted(source.rglob("*.mpg")), random.Random(0)
    held: list[tuple[Tensor, Tensor]] = []
    for number in range(count):
        held.append(raw_item(files[number % len(files)], draw))
        if len(held) == 64:
            for part in zip(*held, strict=True):
                torch.stack(part)
            held = []
    return count


# ---------------------------------------------------------------------- prepared clips


def busy() -> float:
    """Return the processor seconds of this process, and of those that it has started."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


@dataclass
class Rate:
    """Turns of one way to read: samples, seconds, and processor seconds of each."""

    name: str
    turns: list[tuple[int, float, float]] = field(default_factory=list)

    def turn(self, read_some: Callable[[], int]) -> None:
        """Read some samples."""
        start, before = time.perf_counter(), busy()
        count = read_some()
        self.turns.append((count, time.perf_counter() - start, busy() - before))

    @property
    def per_second(self) -> list[float]:
        """Samples a second of each turn."""
        return [count / seconds for count, seconds, _ in self.turns]

    @property
    def milliseconds(self) -> float:
        """Processor time of a sample, of all processes."""
        return statistics.median(used / count * 1e3 for count, _, used in self.turns)

    def __str__(self) -> str:
        cores = statistics.median(used / seconds for _, seconds, used in self.turns)
        return (
            f"  {self.name:<36}{statistics.median(self.per_second):7.1f} samples/s, "
            f"{self.milliseconds:5.2f} ms of processor each, {cores:.2f} cores"
        )


def epochs(folder: Path, batch: int, workers: int) -> Callable[[], int]:
    """Return what reads one epoch after the other, and says how many samples it has."""
    clips = read(folder).train
    keep: dict[str, Any] = {"persistent_workers": True} if workers else {}
    loader = clips.loader(batch, shuffle=True, workers=workers, **keep)
    transform = clips.transform

    def epoch() -> int:
        for raw_batch in loader:
            transform(raw_batch)
        return len(clips)

    return epoch


def reading(source: Path, folder: Path, repeats: int) -> None:
    """Print samples a second for several sizes of batches and numbers of workers."""
    torch.set_num_threads(1)
    cores = os.cpu_count() or 1
    by_hand = Rate("raw files, item by item")
    runs = [
        (Rate(f"prepared, batches of {batch}, {workers} workers"), epochs(folder, batch, workers))
        for batch in BATCHES
        for workers in range(cores + 1)
    ]
    for _, epoch in runs:
        epoch()  # opens the files, and starts the workers
    raw(source, 16)
    for _ in range(repeats):
        by_hand.turn(lambda: raw(source, 64))
        for rate, epoch in runs:
            rate.turn(epoch)
    print(f"\nreading: {cores} cores, {repeats} turns\n{by_hand}")
    for rate, _ in runs:
        pairs = zip(rate.per_second, by_hand.per_second, strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        met = "met" if ratio >= BAR else "not met"
        less = by_hand.milliseconds / rate.milliseconds
        print(f"{rate}: {ratio:.1f}x as fast (bar {BAR}x: {met}), {less:.1f}x less processor")


# ---------------------------------------------------------------------- memory


def resident() -> tuple[float, float]:
    """Return the anonymous memory of this process and its pages of files, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return int(values["RssAnon"]) / 1024, int(values["RssFile"]) / 1024


def growth(folder: str) -> tuple[int, float, float]:
    """Read an epoch; return its samples, and the most that it added to memory, in MiB."""
    torch.set_num_threads(1)
    for name in ("datasets", "PIL.Image", "pyarrow.parquet"):
        import_module(name)
    start, most = resident(), (0.0, 0.0)
    clips = read(folder).train
    transform = clips.transform
    for batch in clips.loader(16, shuffle=True):  # several batches of the small one too
        transform(batch)
        now = resident()
        most = max(most[0], now[0] - start[0]), max(most[1], now[1] - start[1])
    return len(clips), *most


def memory(small: Path, large: Path) -> None:
    """Print what an epoch of either adds to a process."""
    print("\nmemory of reading an epoch, in a fresh process")
    found = []
    for folder in (small, large):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(growth, str(folder)).result())
        samples, held, mapped = found[-1]
        size = sum(path.stat().st_size for path in folder.glob("data/train-*")) / 2**20
        print(
            f"  {samples:6,} samples, {size:7.1f} MiB stored: {held:+8.1f} MiB held, "
            f"{mapped:+8.1f} MiB of files mapped"
        )
    print(f"  held with ten times as many: {found[1][1] - found[0][1]:+.1f} MiB")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder with the .mpg of GRID")
    parser.add_argument("--repeats", type=int, default=5, help="turns of reading")
    parser.add_argument("--only", default="", help="preparing, reading or memory")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"torch {torch.__version__}, {cores} cores, load {os.getloadavg()[0]:.1f} at the start")
    parts: dict[str, Callable[[], None]] = {
        "reading": lambda: reading(options.source, large, options.repeats),
        "memory": lambda: memory(small, large),
    }
    with TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        alone = preparing(options.source, small, 1)
        if options.only in ("", "preparing"):
            all_cores = preparing(options.source, Path(folder, "again"), cores)
            print(f"\npreparing {len(listing(options.source).clips)} clips of 3 s")
            print(f"  1 worker   {alone:6.1f} clips/s")
            print(f"  {cores} workers  {all_cores:6.1f} clips/s, {all_cores / cores:.1f} per core")
        repeated(small, large, 10)
        for name, run in parts.items():
            if options.only in ("", name):
                run()


if __name__ == "__main__":
    main()
