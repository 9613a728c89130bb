"""Regression: six measures of a digit's shape, predicted from three other views of it.

    python examples/tasks/regression.py [--quick]

The target is mfeat's view "mor", six morphological features that were measured on the scan; the
criterion is the Huber loss. The losses are divided by a temperature before they become evidence:
that of a model which always answers the mean, so that such a model has evidence exp(-1) on
average. See docs/tasks/regression.md. Data: mfeat, which comes with the package.
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

VIEWS = ("pix", "fou", "zer")
PRINTED = ("evidence", "ratio", "coefficient")


def explained(prediction: Tensor, target: Tensor, of: Tensor) -> float:
    """Return R^2 averaged over targets, in percent, against the mean of the training split."""
    left = (prediction - target).square().mean(0)
    return 100 * (1 - left / (target - of.mean(0)).square().mean(0)).mean().item()


def train(
    method: eq.Method, splits: data.Splits, epochs: int, seed: int
) -> tuple[float, dict[str, float]]:
    """Return R^2 on the test split, and what the balancer saw in the last epoch."""
    torch.manual_seed(seed)
    views = [splits.train.features[name] for name in VIEWS]
    target = splits.train.features["mor"]
    encoders = {name: nn.MLP(splits.train.features[name].shape[1], (64,), 32) for name in VIEWS}
    head = nn.Concat(dict.fromkeys(VIEWS, 32), classes=target.shape[1])
    model = nn.Multimodal(encoders, head)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    criterion = torch.nn.HuberLoss(delta=1.0)
    # the loss of the best that can be said without looking
    temperature = criterion(target.mean(0).expand_as(target), target).item()
    balancer = eq.Balancer(
        method,
        model,
        encoders,
        model.head,
        optimizer,
        criterion=criterion,
        scores=eq.Split(temperature=temperature),
        seed=seed,
        track_every=1,
    )
    loader = DataLoader(
        TensorDataset(*views, target),
        64,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )
    for _ in range(epochs):
        seen = []
        for *batch, measured in loader:
            loss = balancer.loss(model(*batch), measured)
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(balancer.metrics())
        balancer.end_epoch()
    model.eval()
    with torch.no_grad():
        prediction = model(*(splits.test.features[name] for name in VIEWS))
    score = explained(prediction, splits.test.features["mor"], target)
    return score, {key: mean(step[key] for step in seen) for key in seen[0]}


def main() -> None:
    """Train plainly and with OGM-GE over several seeds, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 seeds of 2 epochs")
    epochs = 2 if parser.parse_args().quick else 15
    torch.set_num_threads(1)
    splits = data.load("mfeat", modalities=(*VIEWS, "mor"))
    print(splits)
    methods: dict[str, Callable[[], eq.Method]] = {
        "plain": eq.Joint,
        "OGM-GE": lambda: eq.OGMGE(alpha=0.3),
    }
    for name, method in methods.items():
        runs = [train(method(), splits, epochs, seed) for seed in range(3)]
        scores = [score for score, _ in runs]
        print(f"{name:7} test R^2 {mean(scores):.2f} +- {stdev(scores):.2f} %", end="")
        print(", by seed:", *(f"{score:.2f}" for score in scores))
        for view in VIEWS:
            of = {key: mean(seen.get(f"{key}/{view}", 1.0) for _, seen in runs) for key in PRINTED}
            print(f"    {view:5}", "  ".join(f"{key} {value:.3f}" for key, value in of.items()))


if __name__ == "__main__":
    main()
