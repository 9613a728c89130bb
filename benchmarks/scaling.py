"""How the time of a step grows: with modalities, samples, parameters and classes, of two builds.

    python -m benchmarks.scaling [--against CHECKOUT] [--only AXIS ...] [--methods NAME ...]

CHECKOUT is another checkout of this repository, such as `git worktree add /tmp/old 9095480`. Each
build works in a process of its own, on one thread; plain and balanced steps of both take turns, so
that who else uses the machine slows all alike. Given are medians of the ratios of neighbours.
"Growth" is the exponent between the first and the last row of an axis of what a step costs beyond
the plain one: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Size:
    """A model of MLPs with a linear head, and its batch."""

    modalities: int = 2
    batch: int = 32
    hidden: int = 64
    classes: int = 10


AXES: dict[str, list[Size]] = {
    "modalities": [Size(modalities=count) for count in (2, 4, 8, 16)],
    "batch": [Size(batch=count) for count in (8, 32, 128, 512)],
    "parameters": [Size(hidden=width) for width in (24, 96, 400, 1750)],  # 1e4 to 2e7
    "classes": [Size(classes=count) for count in (10, 100, 1000, 10_000)],
}
INPUTS, LAYERS = 64, 4


class Build:
    """A checkout at work in a process of its own.

    Args:
        checkout: its folder.
    """

    def __init__(self, checkout: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env={**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: dict[str, Any]) -> dict[str, Any]:
        """Do something, and return what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


def stepper(size: Size, method: str | None) -> tuple[Callable[[], None], int]:
    """Return a step, plain where there is no method, and how many parameters it trains."""
    import torch

    import equimodal as eq
    from equimodal.nn import MLP, Concat, Multimodal

    torch.manual_seed(0)
    names = [f"m{index}" for index in range(size.modalities)]
    hidden = [size.hidden] * LAYERS
    encoders = {name: MLP(INPUTS, hidden, size.hidden) for name in names}
    head = Concat(dict.fromkeys(names, size.hidden), size.classes)
    model = Multimodal(encoders, head)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    inputs = [torch.randn(size.batch, INPUTS) for _ in names]
    target = torch.randint(size.classes, (size.batch,))
    count = sum(parameter.numel() for parameter in model.parameters())
    if method is None:

        def plain() -> None:
            torch.nn.functional.cross_entropy(model(*inputs), target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        return plain, count
    kind = eq.methods.available()[method]
    balancer = eq.Balancer(kind(), model, dict(model.encoders.items()), model.head, optimizer)

    def balanced() -> None:
        balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()

    return balanced, count


def serve() -> None:
    """Do what standard input says: ready a pair of steps, or time each of them once."""
    out, sys.stdout = sys.stdout, sys.stderr
    pair: list[Callable[[], None]] = []
    for line in sys.stdin:
        what = json.loads(line)
        told: dict[str, Any] = {}
        if "size" in what:
            size = Size(**what["size"])
            made = [stepper(size, None), stepper(size, what["method"])]
            pair, told = [step for step, _ in made], {"parameters": made[0][1]}
            for step in (*pair, *pair):
                step()
        else:
            times = []
            for step in pair:
                start = time.process_time()
                step()
                times.append(time.process_time() - start)
            told = {"plain": times[0], "ours": times[1]}
        out.write(json.dumps(told) + "\n")
        out.flush()


def measured(builds: list[Build], size: Size, method: str, turns: int) -> dict[str, Any]:
    """Return the time of a plain step, and for each build the ratio to it."""
    told = [build.ask({"size": asdict(size), "method": method}) for build in builds]
    times = [[build.ask({}) for build in builds] for _ in range(turns)]
    plain = statistics.median(build["plain"] for turn in times for build in turn)
    ratios = [
        statistics.median(turn[index]["ours"] / turn[index]["plain"] for turn in times)
        for index in range(len(builds))
    ]
    return {"parameters": told[0]["parameters"], "plain": plain, "ratios": ratios}


def growth(axis: str, rows: list[tuple[Size, dict[str, Any]]]) -> list[float]:
    """Return for each build the exponent of what a step costs beyond the plain one."""
    (first, low), (last, high) = rows[0], rows[-1]
    if axis == "parameters":
        wide = high["parameters"] / low["parameters"]
    else:
        wide = getattr(last, axis) / getattr(first, axis)
    return [
        math.log(max(b - 1, 1e-3) * high["plain"] / (max(a - 1, 1e-3) * low["plain"]))
        / math.log(wide)
        for a, b in zip(low["ratios"], high["ratios"], strict=True)
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--only", nargs="*", default=[], choices=list(AXES), help="these axes")
    parser.add_argument("--methods", nargs="*", default=["ogm", "ogm-ge", "multi-loss"])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    checkouts = [HERE] if options.against is None else [options.against, HERE]
    builds = [Build(checkout) for checkout in checkouts]
    heads = ["now"] if len(builds) == 1 else ["before", "now"]
    print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores; processor time, one thread")
    for axis in options.only or AXES:
        print(f"\n| {axis} | parameters | method | plain | {' | '.join(heads)} |")
        print("|---" * (4 + len(heads)) + "|")
        for method in options.methods:
            rows = []
            for size in AXES[axis]:
                if axis == "parameters":
                    size = replace(size, batch=8)
                found = measured(builds, size, method, options.turns)
                rows.append((size, found))
                value = size.hidden if axis == "parameters" else getattr(size, axis)
                ratios = " | ".join(f"{ratio:.2f}x" for ratio in found["ratios"])
                time_of = f"{1e3 * found['plain']:.2f} ms"
                print(
                    f"| {value} | {found['parameters']:,} | {method} | {time_of} | {ratios} |",
                    flush=True,
                )
            said = " | ".join(f"{exponent:.2f}" for exponent in growth(axis, rows))
            print(f"| growth | | {method} | | {said} |", flush=True)
    for build in builds:
        build.process.communicate("")


if __name__ == "__main__":
    main()
