"""Host models with and without OGM-GE: test accuracy over seeds, in minutes.

    python benchmarks/hosts.py [--data DIR] [--hosts tsn mmtm ...] [--seeds N] [--epochs N]

Every method starts from the same weights and sees the same batches in the same order. Nothing is
chosen: the last epoch is tested, once, and every alpha that was run is printed. GRID words
(grid_words.npz in --data, or the environment's EQUIMODAL_DATA) are for development and not shipped;
hosts that need them are left out, and said, where the file is missing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import t as student
from torch import Tensor, nn

import equimodal as eq
from equimodal import data
from equimodal.nn import (
    AVGA,
    MMTM,
    PSP,
    TSN,
    CentralNet,
    CNN1d,
    CNN2d,
    CrossModalTransformer,
    sample_segments,
    segment_cross_entropy,
)

METHODS: dict[str, Callable[[], eq.Method]] = {
    "plain": eq.Joint,
    "OGM-GE 0.3": lambda: eq.OGMGE(alpha=0.3),
    "OGM-GE 0.8": lambda: eq.OGMGE(alpha=0.8),
}
DATA = Path(os.environ.get("EQUIMODAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
LETTER = 3  # the slot of a GRID sentence with the letter


@dataclass(frozen=True)
class Task:
    """Training and test batches, each a tuple of inputs and the target."""

    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]


@dataclass(frozen=True)
class Setting:
    """A host on a data set."""

    model: Callable[[], nn.Module]
    task: Callable[[Path], Task]
    epochs: int
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy


def letters(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return GRID's spoken letters, log-mel ``(N, 48, 40)`` and lips ``(N, 12, 24, 36)``."""
    stored = np.load(folder / "grid_words.npz")
    splits = []
    for split in ("train", "test"):
        chosen = stored[f"slot_{split}"] == LETTER
        audio = torch.from_numpy(stored[f"audio_{split}"][chosen]).float()
        video = torch.from_numpy(stored[f"video_{split}"][chosen]).float()
        target = torch.from_numpy(stored[f"y_{split}"][chosen]).long()
        splits.append({"audio": audio, "visual": video, "target": target})
    train, test = splits
    classes = torch.tensor(sorted(set(train["target"].tolist())))
    for name in ("audio", "visual"):
        mean, std = train[name].mean(), train[name].std()
        for part in splits:
            part[name] = (part[name] - mean) / std
    for part in splits:
        part["target"] = torch.searchsorted(classes, part["target"])
    return train, test


def letters_as(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Any:
    """Return a task of GRID's letters, with the inputs as a host takes them."""

    def task(folder: Path) -> Task:
        parts = [(*change(s["audio"], s["visual"]), s["target"]) for s in letters(folder)]
        return Task(*parts)

    return task


def snippets(audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
    """Three snippets of 130 ms of sound, and of four frames."""
    heard = sample_segments(audio.transpose(1, 2), segments=3, length=13)
    return heard.unsqueeze(2), sample_segments(visual, segments=3, length=4)


def watch(_: Path) -> Task:
    """The embedded watch: test subjects are unseen."""
    splits = data.load("watch")
    parts = [next(iter(samples.loader(len(samples)))) for samples in (splits.train, splits.test)]
    return Task(*parts)


def events(_: Path) -> Task:
    """Synthetic videos of AVE's kind: an event in some of ten seconds, heard, and seen in a cell.

    It is random vectors with noise, and stands in for features that could not be had: sound is
    clearer than sight. 8 classes, one of them the background.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    heard, seen = draw(8, 32), draw(8, 64)
    parts = []
    for videos in (400, 400):
        event = torch.randint(1, 8, (videos, 1), generator=generator)
        start = torch.randint(0, 6, (videos, 1), generator=generator)
        seconds = torch.arange(10)
        target = torch.where((seconds >= start) & (seconds < start + 5), event, 0)
        audio = 0.5 * heard[target] + 1.0 * draw(videos, 10, 32)
        visual = draw(videos, 10, 9, 64)
        cell = torch.randint(0, 9, (videos, 10), generator=generator)
        visual.view(-1, 9, 64)[torch.arange(videos * 10), cell.view(-1)] += 0.7 * seen[target].view(
            -1, 64
        )
        parts.append((audio, visual, target))
    return Task(*parts)


SETTINGS: dict[str, Setting] = {
    "tsn": Setting(
        lambda: TSN({"audio": CNN2d(1, 64), "visual": CNN2d(4, 64)}, classes=25),
        letters_as(snippets),
        40,
    ),
    "mmtm": Setting(
        lambda: MMTM({"audio": CNN2d(1, 64), "visual": CNN2d(12, 64)}, classes=25),
        letters_as(lambda audio, visual: (audio.unsqueeze(1), visual)),
        40,
    ),
    "cross-modal": Setting(
        lambda: CrossModalTransformer({"audio": 48, "visual": 864}, classes=25, features=32),
        letters_as(lambda audio, visual: (audio.transpose(1, 2), visual.flatten(2))),
        40,
    ),
    "centralnet": Setting(
        lambda: CentralNet(
            {"accelerometer": CNN1d(3, 32, width=8), "gyroscope": CNN1d(3, 32, width=8)}, classes=7
        ),
        watch,
        15,
    ),
    "avga": Setting(
        lambda: AVGA(8, audio=32, visual=64, hidden=16, attention=32),
        events,
        20,
        segment_cross_entropy,
    ),
    "psp": Setting(
        lambda: PSP(8, audio=32, visual=64, hidden=16, attention=32),
        events,
        20,
        segment_cross_entropy,
    ),
}


def run(
    setting: Setting, task: Task, method: eq.Method, seed: int, epochs: int
) -> dict[str, float]:
    """Train once, and return test accuracies: together, and of each modality by its score."""
    torch.manual_seed(seed)
    model: Any = setting.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    order = torch.Generator().manual_seed(seed)
    balancer = eq.Balancer(
        method,
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        criterion=setting.criterion,
        seed=seed,
    )
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(task.train[-1]), generator=order), 64):
            *inputs, target = (part[index] for part in task.train)
            for _ in balancer.passes():
                if isinstance(model, CentralNet):  # its loss has a term for each branch
                    features = model.encode(*inputs)
                    loss = balancer.loss(model.head(**features), target)
                    loss = loss + model.branch_loss(features, target)
                else:
                    loss = balancer.loss(model(*inputs), target)
                balancer.backward(loss)
            balancer.modulate()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
    model.eval()
    *inputs, target = task.test
    with torch.no_grad():
        logits, alone = balancer.evaluate(*inputs)
    read = {"together": logits, **alone}
    return {k: 100 * (v.argmax(-1) == target).float().mean().item() for k, v in read.items()}


def main() -> None:
    """Print one table for each host."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--hosts", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of those of each setting")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for host in given.hosts:
        setting = SETTINGS[host]
        try:
            task = setting.task(given.data)
        except FileNotFoundError as error:
            print(f"{host}: left out, {error}")
            continue
        start = time.perf_counter()
        print(f"{host}: {given.epochs or setting.epochs} epochs, {given.seeds} seeds", flush=True)
        plain: list[float] = []
        for name, method in METHODS.items():
            results = [
                run(setting, task, method(), seed, given.epochs or setting.epochs)
                for seed in range(given.seeds)
            ]
            print(row(name, results, plain), flush=True)
            plain = plain or [each["together"] for each in results]
        print(f"  {time.perf_counter() - start:.0f} s\n", flush=True)


def row(name: str, results: list[dict[str, float]], plain: list[float]) -> str:
    """Mean and standard deviation over seeds, and the paired difference with its 95% interval."""
    text = f"  {name:12s}"
    for key in results[0]:
        values = [each[key] for each in results]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        text += f"{key} {statistics.mean(values):5.1f} ± {spread:4.1f}   "
    if plain and len(plain) > 1:
        gains = [each["together"] - before for each, before in zip(results, plain, strict=True)]
        factor = float(student.ppf(0.975, len(gains) - 1)) / len(gains) ** 0.5
        half = factor * statistics.stdev(gains)
        text += f"difference {statistics.mean(gains):+.1f} ± {half:.1f}"
    return text


if __name__ == "__main__":
    main()
