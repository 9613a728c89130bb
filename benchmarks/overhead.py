"""What balancing costs: a step with OGM and OGM-GE against the plain step, in one run.

    python benchmarks/overhead.py [--repeats N] [--only NAME]

Steps of the plain loop and of the balanced ones take turns, so that a noisy machine is noisy for
all of them alike; the ratio printed is the median over pairs of neighbours, with the standard error
of that median. Memory is the peak of what torch allocates, from before the model is made to after
its second step, over that of the plain loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.nn import MLP, CNN2d, Concat, Multimodal, ResNet18

Make = Callable[[], eq.Method]
METHODS: dict[str, Make] = {
    "ogm": lambda: eq.OGM(alpha=0.8),
    "ogm-ge": lambda: eq.OGMGE(alpha=0.8),
    "ogm-ge, per element": lambda: eq.OGMGE(alpha=0.8, noise=eq.ElementNoise()),
    "ogm, on updates": lambda: eq.OGM(alpha=0.8, space="update"),
}


@dataclass(frozen=True)
class Setting:
    """A model, its batch, and the bars that the design sets for it."""

    name: str
    model: Callable[[], Any]
    inputs: Callable[[], list[Tensor]]
    steps: int
    bars: dict[str, float]
    classes: int


def small_cnn() -> Multimodal:
    """Two small CNNs and a linear head."""
    encoders = {"audio": CNN2d(1, 64, width=16), "visual": CNN2d(3, 64, width=16)}
    return Multimodal(encoders, Concat({"audio": 64, "visual": 64}, 25))


def resnets() -> Multimodal:
    """The model of OGM-GE."""
    encoders = {"audio": ResNet18(1), "visual": ResNet18(3)}
    return Multimodal(encoders, Concat({"audio": 512, "visual": 512}, 6))


def large_mlp() -> Multimodal:
    """Three large MLPs: many parameters for little computation, the worst case."""
    encoders = {
        name: MLP(width, hidden=(2048, 2048), features=256)
        for name, width in {"audio": 512, "visual": 1024, "text": 768}.items()
    }
    return Multimodal(encoders, Concat(dict.fromkeys(encoders, 256), 10))


SETTINGS = [
    Setting(
        "small CNN, batch 64",
        small_cnn,
        lambda: [torch.randn(64, 1, 128, 96), torch.randn(64, 3, 112, 112)],
        40,
        {"ogm": 1.02, "ogm-ge": 1.08},
        25,
    ),
    Setting(
        "ResNet-18 pair, batch 16",
        resnets,
        lambda: [torch.randn(16, 1, 257, 188), torch.randn(16, 3, 1, 224, 224)],  # CREMA-D
        8,
        {"ogm": 1.02, "ogm-ge": 1.04},
        6,
    ),
    Setting(
        "MLP, 20 million parameters, 3 modalities, batch 256",
        large_mlp,
        lambda: [torch.randn(256, 512), torch.randn(256, 1024), torch.randn(256, 768)],
        30,
        {},
        10,
    ),
]


def stepper(setting: Setting, method: eq.Method | None, epochs: int = 0) -> Callable[[], None]:
    """Return one step of training, plain or balanced.

    Args:
        setting: the model and its batch.
        method: how to balance; None for the plain step.
        epochs: of one step, before the step that is returned.
    """
    torch.manual_seed(0)
    model, inputs = setting.model(), setting.inputs()
    target = torch.randint(setting.classes, (len(inputs[0]),))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    if method is None:

        def plain() -> None:
            loss = F.cross_entropy(model(*inputs), target)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        return plain
    loader = DataLoader(TensorDataset(*inputs, target), len(target))
    balancer = eq.Balancer(
        method,
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        train_loader=loader,
        val_loader=loader,
        epochs=100,
    )
    again = method.overrides("perturb")  # else the loop of a user who needs one pass

    def balanced(batch: Sequence[Tensor] = (*inputs, target)) -> None:
        *given, wanted = batch
        for _ in balancer.passes() if again else range(1):
            balancer.backward(balancer.loss(model(*given), wanted))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()

    if not method.overrides("order"):
        for _ in range(epochs):
            balanced()
            balancer.end_epoch()
        return balanced
    for _ in range(epochs):
        balanced(next(iter(balancer.batches(loader))))
        balancer.end_epoch()
    drawn = iter(balancer.batches(loader))
    batch = next(drawn)

    def step(held: Any = drawn) -> None:
        """While the iterator is held at a batch, that is the batch of the step."""
        balanced(batch)

    return step


def seconds(step: Callable[[], None]) -> float:
    """Return how long a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def ratios(
    setting: Setting, make: Make, repeats: int, epochs: int = 0
) -> tuple[float, float, float]:
    """Return the median time of a plain step, and the median and spread of the ratio to it."""
    plain, balanced = stepper(setting, None), stepper(setting, make(), epochs)
    for _ in range(3):
        plain()
        balanced()
    found, times = [], []
    for index in range(setting.steps * repeats):
        pair = (plain, balanced) if index % 2 else (balanced, plain)
        first, second = (seconds(step) for step in pair)
        base, ours = (first, second) if index % 2 else (second, first)
        times.append(base)
        found.append(ours / base)
    low, middle, high = statistics.quantiles(found, n=4)
    error = 1.25 * (high - low) / 1.35 / len(found) ** 0.5
    return statistics.median(times), middle, error


def peak(setting: Setting, make: Make | None, epochs: int = 0) -> float:
    """Return the peak of what torch allocates for a model and two steps of it, in MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = stepper(setting, None if make is None else make(), epochs)
        step()
        step()
    events: Any = profiler.profiler.kineto_results.events()
    allocated = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    live = most = 0
    for _, size in allocated:
        live += size
        most = max(most, live)
    return most / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="times as many steps")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    options = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler speaks otherwise
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for setting in SETTINGS:
        if options.only not in setting.name:
            continue
        parameters = list(setting.model().parameters())
        largest = max(p.numel() * p.element_size() for p in parameters) / 2**20
        total = sum(p.numel() for p in parameters) / 1e6
        print(f"\n{setting.name}: {total:.1f} M parameters, largest tensor {largest:.1f} MiB")
        base = None if options.no_memory else peak(setting, None)
        for name in METHODS:
            plain, ratio, spread = ratios(setting, METHODS[name], options.repeats)
            line = f"  {name:<22}{ratio:6.3f}x +- {spread:.3f} of {plain * 1e3:7.1f} ms"
            if bar := setting.bars.get(name):
                line += f"   bar {bar:.2f}x: {'met' if ratio <= bar else 'MISSED'}"
            if base is not None:
                extra = peak(setting, METHODS[name]) - base
                line += f"   memory {extra:+7.2f} MiB"
            print(line, flush=True)


if __name__ == "__main__":
    main()
