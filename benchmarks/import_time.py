"""How long `import equimodal` takes against `import torch`, in one run.

What is not asked for is not imported: the third line is what a program that trains comes to.

    python benchmarks/import_time.py [--repeats N]

Fresh interpreters take turns; the ratio printed is that of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    """Return how long a fresh interpreter takes to run a line."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    lines = ("import torch", "import equimodal", "import equimodal; equimodal.Balancer")
    for line in lines:
        seconds(line)  # the first run compiles and reads from disk
    times: dict[str, list[float]] = {line: [] for line in lines}
    for _ in range(repeats):
        for line in lines:
            times[line].append(seconds(line))
    torch, ours, used = (statistics.median(times[line]) for line in lines)
    verdict = "met" if ours <= 1.03 * torch else "MISSED"
    print(f"import torch {torch:.2f} s, import equimodal {ours:.2f} s: {ours / torch:.3f}x", end="")
    print(f"   bar 1.03x: {verdict}")
    print(f"and the balancer, as where it is first used: {used:.2f} s, {used / torch:.3f}x")


if __name__ == "__main__":
    main()
