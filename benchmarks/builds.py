"""Two builds of equimodal side by side, in turns: preparing, reading, and the most memory held.

    python benchmarks/builds.py --source RAW/grid --against CHECKOUT [--repeats N]

CHECKOUT is another checkout of this repository, such as `git worktree add ../base 9095480`. Each
build works in processes of its own, on folders of its own; they take turns, so that who else uses
the machine slows both. Given are medians over the turns, and the median of the ratios of a turn.

Clips and their view are those of `benchmarks/data.py`; "three frames, 5 s" is the view of VGGSound.
Processor time is of one process without workers, where nothing else counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parents[1]
VIEWS: dict[str, dict[str, Any]] = {
    "one frame, 3 s": {},
    "three frames, 5 s": {"frames": 3, "seconds": 5.0, "n_fft": 256, "hop": 128},
}
CLIPS = 40


class Build:
    """A checkout at work in a process of its own.

    Args:
        checkout: its folder.
        source: with the clips.
        folder: to prepare into.
    """

    def __init__(self, checkout: Path, source: Path, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", "--source", source, "--folder", folder],
            env={**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def turn(self, what: str) -> dict[str, float]:
        """Do something once, and return what it took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        told: dict[str, float] = json.loads(self.process.stdout.readline())
        return told


def serve(source: Path, folder: Path) -> None:
    """Do what standard input says, and say what it took."""
    out, sys.stdout = sys.stdout, sys.stderr
    import torch

    sys.path.insert(0, str(HERE / "benchmarks"))
    from data import VIEW, listing  # type: ignore[import-not-found]

    from equimodal.data.batches.read import read
    from equimodal.data.layouts import CremaD, Listing
    from equimodal.data.preparing import prepare
    from equimodal.data.preparing.rows import decoded

    torch.set_num_threads(1)
    clips: Listing = listing(source)
    prepare(clips, folder, CremaD.recipe, VIEW, workers=1, shard_size=32)
    loaders = {}
    for name, view in VIEWS.items():
        split = read(folder, **view).train
        loaders[name] = (split.transform, split.loader(32, shuffle=True), len(split))
    for line in sys.stdin:
        what = line.strip()
        start, used = time.perf_counter(), time.process_time()
        if what == "preparing":
            labels = {name: label for label, name in enumerate(clips.classes)}
            for clip in clips.clips[:CLIPS]:
                decoded(clip, clips.root, CremaD.recipe, labels[clip.label])
            count = CLIPS
        else:
            transform, loader, count = loaders[what]
            for batch in loader:
                transform(batch)
        told = {
            "rate": count / (time.perf_counter() - start),
            "milliseconds": 1e3 * (time.process_time() - used) / count,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        out.write(json.dumps(told) + "\n")
        out.flush()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder with the .mpg of GRID")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--repeats", type=int, default=7, help="turns")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.source, options.folder)
        return
    print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores at the start")
    print("| what | before | now | processor, before | now | ratio of turns | peak memory |")
    print("|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        old = Build(options.against, options.source, Path(folder, "old"))
        new = Build(HERE, options.source, Path(folder, "new"))
        for what in ("preparing", *VIEWS):
            for build in (old, new):
                build.turn(what)
            turns = [(old.turn(what), new.turn(what)) for _ in range(options.repeats)]
            print(_row(what, turns))
        for build in (old, new):
            build.process.communicate("")


def _row(what: str, turns: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    def median(side: int, key: str) -> float:
        return statistics.median(turn[side][key] for turn in turns)

    ratio = statistics.median(a["milliseconds"] / b["milliseconds"] for a, b in turns)
    unit = "clips/s" if what == "preparing" else "samples/s"
    return (
        f"| {what} | {median(0, 'rate'):.1f} {unit} | {median(1, 'rate'):.1f} {unit} | "
        f"{median(0, 'milliseconds'):.2f} ms | {median(1, 'milliseconds'):.2f} ms | {ratio:.2f} | "
        f"{median(0, 'peak'):.0f}, {median(1, 'peak'):.0f} MiB |"
    )


if __name__ == "__main__":
    main()
