"""What a step of every method consists of: operations and floating-point operations, counted.

    python -m benchmarks.counts [--only NAME ...]

Counts do not depend on the machine or on what else it does, so that a test compares them with
`benchmarks/counts.csv`, which this writes (with ``--only`` they are printed alone). An operation is
one that PyTorch dispatches below autograd, views included, from the forward to the end of
``optimizer.step`` and ``zero_grad``; floating-point operations are those of products, as
`torch.utils.flop_counter` knows them. The step is one after an epoch of one step, so that what is
made at its end is in use; encoders are MLPs of five layers, the batch has 8 samples, and methods
have the settings of `benchmarks/methods.py`.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmarks.overhead import Setting, stepper
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import equimodal as eq
from equimodal.nn import MLP, MMTM, Concat, Multimodal

TABLE = Path(__file__).with_name("counts.csv")
TORCH = "2.13"  # the same step is made of other operations in another version
MODALITIES = (2, 4, 8)
SAMPLES, INPUTS, HIDDEN, WIDTH, CLASSES = 8, 12, (16, 16, 16, 16), 16, 5
PLAIN = "plain"


class Count(NamedTuple):
    """What one step is made of."""

    operations: int
    flops: int


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is dispatched; marks of the profiler are no operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[Any] = []
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.namespace != "profiler":
            self.names.append(func)
            if func._overloadpacket in flop_registry:
                self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        return out


def names_of(modalities: int) -> list[str]:
    """Return names of modalities."""
    return [f"m{index}" for index in range(modalities)]


def encoders(modalities: int) -> dict[str, nn.Module]:
    """Return an encoder for each of them."""
    return {name: MLP(INPUTS, HIDDEN, WIDTH) for name in names_of(modalities)}


def concatenated(modalities: int) -> Multimodal:
    """Return encoders and a linear head on all features."""
    return Multimodal(
        encoders(modalities), Concat(dict.fromkeys(names_of(modalities), WIDTH), CLASSES)
    )


def teachers(modalities: int) -> dict[str, nn.Module]:
    """Return a teacher for each modality."""
    return {
        name: eq.Teacher(encoder, nn.Linear(WIDTH, CLASSES))
        for name, encoder in encoders(modalities).items()
    }


# Those whose default setting is not for any number of modalities, or leaves out what they do.
MADE: dict[str, Callable[[int], eq.Method]] = {
    "arl": lambda count: eq.ARL(start=0),
    "aug": lambda count: eq.AUG(every=1),
    "data-remixing": lambda count: eq.DataRemixing(warm_up=1),
    "g2d": lambda count: eq.G2D(teachers(count), gating=(0, 1)),
    "greedy": lambda count: eq.Greedy(start=0),
    "midas": lambda count: eq.MIDAS(warm_up=0),
    "modality-valuation": lambda count: eq.ModalityValuation(warm_up=1),
    "mslr": lambda count: eq.MSLR({"m0": 0.5}),
    "opm": lambda count: eq.OPM(warm_up=0),
    "sample-valuation": lambda count: eq.SampleValuation(warm_up=1),
    "umt": lambda count: eq.UMT(teachers(count)),
    "unimodal": lambda count: eq.Unimodal("m0"),
}
HOSTS: dict[str, Callable[[int], nn.Module]] = {
    "greedy": lambda count: MMTM(encoders(count), CLASSES)
}


def setting(modalities: int, name: str = PLAIN) -> Setting:
    """Return the model that a method is counted on."""
    host = HOSTS.get(name, concatenated)

    def inputs() -> list[torch.Tensor]:
        return [torch.randn(SAMPLES, INPUTS) for _ in range(modalities)]

    return Setting(name, lambda: host(modalities), inputs, 1, {}, CLASSES)


def counted(name: str, modalities: int) -> Count:
    """Count a step.

    Args:
        name: of a method, or "plain" for the step without one.
        modalities: how many.

    Raises:
        equimodal.SetupError: the method is not for so many.
    """
    kind = eq.methods.available().get(name)
    method = None
    if kind is not None:
        method = MADE[name](modalities) if name in MADE else kind()
    return _counted(setting(modalities, name), method)


def _counted(of: Setting, method: eq.Method | None) -> Count:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what another thread does is not counted
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            step = stepper(of, method, epochs=1)
            with Operations() as operations:
                step()
    finally:
        torch.set_num_threads(threads)
    return Count(len(operations.names), operations.flops)


@functools.cache
def _plain(host: Callable[[int], nn.Module], modalities: int) -> Count:
    name = next((name for name, kind in HOSTS.items() if kind is host), PLAIN)
    return _counted(setting(modalities, name), None)


def rows(names: Iterable[str]) -> list[list[str]]:
    """Return the rows of the table: of each step, and by how much it is more than the plain one."""
    found = []
    for name in names:
        for modalities in MODALITIES:
            try:
                count = counted(name, modalities)
            except eq.SetupError:
                continue  # not for so many
            base = _plain(HOSTS.get(name, concatenated), modalities)
            cells = (modalities, count.operations, count.operations - base.operations, count.flops)
            found.append([name, *map(str, cells), f"{count.flops / base.flops:.3f}"])
    return found


HEADER = ["method", "modalities", "operations", "beyond plain", "flops", "of plain"]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="print those of these methods")
    only = parser.parse_args().only
    found = rows(only or [PLAIN, *eq.methods.available()])
    if only:
        csv.writer(sys.stdout, lineterminator="\n").writerows([HEADER, *found])
        return
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *found])
    print(f"{TABLE}: {len(found)} rows, torch {torch.__version__}")


if __name__ == "__main__":
    main()
