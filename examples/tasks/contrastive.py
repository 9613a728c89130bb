"""Contrastive: a dual encoder of accelerometer and gyroscope, trained with InfoNCE.

    python examples/tasks/contrastive.py [--quick]

The model has no fusion head: it returns the similarities of all pairs of the batch in both
directions, and the evidence of a sensor is how well it finds its partner. That is not doing well
"alone": docs/tasks/contrastive.md says what it is, and why the coefficient without a jump is used.
AdamW cancels factors on gradients, so updates are scaled. Data: watch, which comes with the
package; every second window, so that windows of one recording do not overlap.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import data, nn

PRINTED = ("evidence", "ratio", "coefficient")
SENSORS = ("accelerometer", "gyroscope")
TEMPERATURE = 0.1


def similarities(queries: Tensor, candidates: Tensor) -> Tensor:
    """Return the cosine of every query with every candidate over the temperature, (B, B)."""
    return F.normalize(queries, dim=1) @ F.normalize(candidates, dim=1).T / TEMPERATURE


class DualEncoder(torch.nn.Module):
    """Two encoders; returns similarities (B, B, 2): row i asks, column j answers, both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = torch.nn.ModuleDict({name: self.encoder() for name in SENSORS})

    @staticmethod
    def encoder() -> torch.nn.Module:
        """Return an encoder of one sensor, its last layer linear."""
        cnn = nn.CNN1d(3, 64, width=8, norm="group")
        return torch.nn.Sequential(cnn, torch.nn.Linear(64, 32))

    def forward(self, *signals: Tensor) -> Tensor:
        """Return the similarities, from accelerometer to gyroscope and back."""
        a, g = (encoder(s) for encoder, s in zip(self.encoders.values(), signals, strict=True))
        return torch.stack([similarities(a, g), similarities(g, a)], dim=2)


def info_nce(logits: Tensor, partner: Tensor, reduction: str = "mean") -> Tensor:
    """Return InfoNCE of similarities (B, B, P), averaged over the P directions.

    With a `reduction`, the library can ask for the loss of every sample.
    """
    directions = logits.shape[2]
    return F.cross_entropy(logits, partner[:, None].expand(-1, directions), reduction=reduction)


def as_query(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return for each sensor the similarities with itself as the query, (B, B, 1)."""
    a, g = (features[name] for name in SENSORS)
    return {
        "accelerometer": similarities(a, g)[:, :, None],
        "gyroscope": similarities(g, a)[:, :, None],
    }


def train(
    method: eq.Method, pairs: tuple[Tensor, ...], test: tuple[Tensor, ...], epochs: int, seed: int
) -> tuple[float, dict[str, float]]:
    """Return recall at 1 on the test windows, and what the balancer saw in the last epoch."""
    torch.manual_seed(seed)
    model = DualEncoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    balancer = eq.Balancer(
        method,
        model,
        dict(model.encoders.items()),
        head=None,
        optimizer=optimizer,
        criterion=info_nce,
        scores=as_query,
        seed=seed,
        track_every=1,
    )
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*pairs), 64, shuffle=True, drop_last=True, generator=order)
    for _ in range(epochs):
        seen = []
        for signals in loader:
            loss = balancer.loss(model(*signals), torch.arange(len(signals[0])))
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(balancer.metrics())
        balancer.end_epoch()
    model.eval()
    right = []
    with torch.no_grad():
        for signals in DataLoader(TensorDataset(*test), 64):
            found = model(*signals).argmax(1)  # (B, 2)
            right.append(found == torch.arange(len(found))[:, None])
    recall = 100 * torch.cat(right).float().mean().item()
    return recall, {key: mean(step[key] for step in seen) for key in seen[0]}


def windows(arrays: data.Arrays, seed: int) -> tuple[Tensor, ...]:
    """Return both signals of every second window, shuffled."""
    rows = torch.arange(0, len(arrays), 2)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    return tuple(arrays.features[name][rows] for name in SENSORS)


def main() -> None:
    """Train plainly and with OGM-GE over several seeds, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 seeds of 1 epoch")
    epochs = 1 if parser.parse_args().quick else 12
    torch.set_num_threads(1)
    splits = data.load("watch", modalities=SENSORS)
    print(splits)
    pairs, test = windows(splits.train, seed=0), windows(splits.test, seed=1)
    methods: dict[str, Callable[[], eq.Method]] = {
        "plain": eq.Joint,
        "OGM-GE": lambda: eq.OGMGE(alpha=0.3, coefficient=eq.Continuous(), space="update"),
    }
    for name, method in methods.items():
        runs = [train(method(), pairs, test, epochs, seed) for seed in range(3)]
        scores = [score for score, _ in runs]
        print(f"{name:7} test recall@1 of 64 {mean(scores):.1f} +- {stdev(scores):.1f} %", end="")
        print(", by seed:", *(f"{score:.1f}" for score in scores))
        for sensor in SENSORS:
            of = {
                key: mean(seen.get(f"{key}/{sensor}", 1.0) for _, seen in runs) for key in PRINTED
            }
            print(f"    {sensor:13}", "  ".join(f"{key} {x:.3f}" for key, x in of.items()))


if __name__ == "__main__":
    main()
