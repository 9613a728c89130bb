"""Localisation: which exercise, and when, in sessions spliced from real recordings.

    python examples/tasks/localisation.py [--quick]

A session is up to 12 segments of 2 s of one subject: two or three runs of segments, each out of
one recording. Every segment has the label of its recording; the first class, the pendulum (the arm
hangs and swings), plays the background. Shorter sessions are padded, and `ignore_index` leaves the
padding out. The splicing is ours, signals and labels are the data's. See
docs/tasks/localisation.md. Data: watch, which comes with the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean, stdev

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import data, nn

PRINTED = ("evidence", "ratio", "coefficient")
SEGMENTS, PADDING = 12, -100


class Segments(torch.nn.Module):
    """One encoder applied to every segment: (B, T, 3, 100) to (B, T, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.CNN1d(3, 32, width=8, norm="group")

    def forward(self, signal: Tensor) -> Tensor:
        """Return the features of every segment."""
        features: Tensor = self.encoder(signal.flatten(0, 1))
        return features.view(*signal.shape[:2], -1)


class Localiser(torch.nn.Module):
    """Reads every segment beside its neighbours; logits (B, C, T), as cross-entropy takes them."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.context = torch.nn.Conv1d(width, 32, 3, padding=1)
        self.classifier = torch.nn.Conv1d(32, classes, 1)

    def forward(self, accelerometer: Tensor, gyroscope: Tensor) -> Tensor:
        """Return the logits of every segment."""
        features = torch.cat([accelerometer, gyroscope], dim=2).transpose(1, 2)
        logits: Tensor = self.classifier(self.context(features).relu())
        return logits


def splice(arrays: data.Arrays, sessions: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both signals, float32 (N, T, 3, 100), and the label of every segment, int64 (N, T)."""
    assert arrays.groups is not None
    generator = torch.Generator().manual_seed(seed)

    def draw(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    # windows follow each other every 50 readings, so every second one starts where one ended
    follows = arrays.ids[1:] - arrays.ids[:-1] == 50
    recordings = [
        part[::2]
        for part in torch.arange(len(arrays)).tensor_split((~follows).nonzero().flatten() + 1)
    ]
    of_subject: dict[int, list[Tensor]] = {}
    for recording in recordings:
        of_subject.setdefault(int(arrays.groups[recording[0]]), []).append(recording)
    subjects = list(of_subject.values())
    index = torch.zeros(sessions, SEGMENTS, dtype=torch.int64)
    target = torch.full((sessions, SEGMENTS), PADDING)
    for session in range(sessions):
        own = subjects[draw(len(subjects))]
        runs = []
        for _ in range(2 + draw(2)):
            recording = own[draw(len(own))]
            length = min(2 + draw(3), len(recording))
            start = draw(len(recording) - length + 1)
            runs.append(recording[start : start + length])
        row = torch.cat(runs)
        index[session, : len(row)] = row
        target[session, : len(row)] = arrays.target[row]
    held = (target != PADDING)[..., None, None]
    accelerometer, gyroscope = (feature[index] * held for feature in arrays.features.values())
    return accelerometer, gyroscope, target


def train(
    method: eq.Method,
    sessions: tuple[Tensor, ...],
    test: tuple[Tensor, ...],
    epochs: int,
    seed: int,
) -> tuple[float, dict[str, float]]:
    """Return the accuracy over test segments, and what the balancer saw in the last epoch."""
    torch.manual_seed(seed)
    encoders = {"accelerometer": Segments(), "gyroscope": Segments()}
    model = nn.Multimodal(encoders, Localiser(64, classes=7))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    balancer = eq.Balancer(
        method,
        model,
        encoders,
        model.head,
        optimizer,
        criterion=torch.nn.CrossEntropyLoss(ignore_index=PADDING),
        scores=eq.Ablation(),
        seed=seed,
        track_every=1,
    )
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*sessions), 32, shuffle=True, generator=order)
    for _ in range(epochs):
        seen = []
        for accelerometer, gyroscope, target in loader:
            loss = balancer.loss(model(accelerometer, gyroscope), target)
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(balancer.metrics())
        balancer.end_epoch()
    model.eval()
    *signals, target = test
    with torch.no_grad():
        right = model(*signals).argmax(1) == target
    accuracy = 100 * right[target != PADDING].float().mean().item()
    return accuracy, {key: mean(step[key] for step in seen) for key in seen[0]}


def main() -> None:
    """Train plainly and with OGM-GE over several seeds, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 seeds of 1 epoch, fewer sessions")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    splits = data.load("watch")
    print(splits)
    sessions = splice(splits.train, 64 if quick else 384, seed=0)
    test = splice(splits.test, 64 if quick else 256, seed=1)
    methods: dict[str, Callable[[], eq.Method]] = {
        "plain": eq.Joint,
        "OGM-GE": lambda: eq.OGMGE(alpha=0.3),
    }
    for name, method in methods.items():
        runs = [train(method(), sessions, test, 1 if quick else 12, seed) for seed in range(3)]
        scores = [score for score, _ in runs]
        print(f"{name:7} test segments right {mean(scores):.1f} +- {stdev(scores):.1f} %", end="")
        print(", by seed:", *(f"{score:.1f}" for score in scores))
        for signal in splits.modalities:
            of = {
                key: mean(seen.get(f"{key}/{signal}", 1.0) for _, seen in runs) for key in PRINTED
            }
            print(f"    {signal:13}", "  ".join(f"{key} {x:.3f}" for key, x in of.items()))


if __name__ == "__main__":
    main()
