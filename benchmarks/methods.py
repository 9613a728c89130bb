"""What every method costs: its step against the plain step, in one run.

    python -m benchmarks.methods [--repeats N] [--only NAME ...] [--no-memory]

The methods of the registry with their default settings, but for warm-ups that leave out what a
method does, which are cut short; those that need more get it: teachers, factors, a host with gates.
Time and memory are measured as in `overhead.py`, where steps of the plain loop and of the balanced
one take turns, after one epoch: so that what is made at its end is in use. What happens between
epochs is not in the numbers, and neither is that epochs may be longer.
"""

from __future__ import annotations

import argparse
import os

import torch
from benchmarks.overhead import Make, Setting, peak, ratios, small_cnn
from torch import nn

import equimodal as eq
from equimodal.nn import MMTM, CNN2d

CLASSES = 25


def encoders() -> dict[str, nn.Module]:
    """The encoders of the small CNN."""
    return {"audio": CNN2d(1, 64, width=16), "visual": CNN2d(3, 64, width=16)}


def teachers() -> dict[str, nn.Module]:
    """A teacher for each of them."""
    return {n: eq.Teacher(encoder, nn.Linear(64, CLASSES)) for n, encoder in encoders().items()}


def host() -> MMTM:
    """The same encoders with gates between them."""
    return MMTM(encoders(), CLASSES)


PLAIN = Setting(
    "small CNN, batch 64",
    small_cnn,
    lambda: [torch.randn(64, 1, 64, 48), torch.randn(64, 3, 56, 56)],
    24,
    {},
    CLASSES,
)
GATED = Setting("MMTM", host, PLAIN.inputs, PLAIN.steps, {}, CLASSES)

HOSTS = {"greedy": GATED}
MADE: dict[str, Make] = {
    "arl": lambda: eq.ARL(start=0),
    "aug": lambda: eq.AUG(every=1),
    "data-remixing": lambda: eq.DataRemixing(warm_up=1),
    "g2d": lambda: eq.G2D(teachers(), gating=(0, 1)),
    "greedy": lambda: eq.Greedy(start=0),
    "midas": lambda: eq.MIDAS(warm_up=0),
    "modality-valuation": lambda: eq.ModalityValuation(warm_up=1),
    "mslr": lambda: eq.MSLR({"audio": 0.5}),
    "opm": lambda: eq.OPM(warm_up=0),
    "sample-valuation": lambda: eq.SampleValuation(warm_up=1),
    "umt": lambda: eq.UMT(teachers()),
    "unimodal": lambda: eq.Unimodal("audio"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="times as many steps")
    parser.add_argument("--only", nargs="*", default=[], help="names of methods")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    options = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler speaks otherwise
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {PLAIN.name}")
    print(f"{'method':<24}{'step':>8}{'+-':>8}{'plain':>10}{'memory':>14}   declared passes")
    bases: dict[str, float] = {}
    for name, kind in eq.methods.available().items():
        if options.only and name not in options.only:
            continue
        setting, make = HOSTS.get(name, PLAIN), MADE.get(name, kind)
        plain, ratio, spread = ratios(setting, make, options.repeats, epochs=1)
        line = f"{name:<24}{ratio:7.2f}x{spread:8.2f}{plain * 1e3:7.1f} ms"
        if not options.no_memory:
            if setting.name not in bases:
                bases[setting.name] = peak(setting, None)
            line += f"{peak(setting, make, epochs=1) - bases[setting.name]:+10.2f} MiB"
        can = kind.capabilities
        note = f" of {setting.name}" if setting is not PLAIN else ""
        print(f"{line}   {can.forwards} + {can.backwards}{note}", flush=True)


if __name__ == "__main__":
    main()
