"""Multi-label: four yes-or-no questions about a digit, from three views of it.

    python examples/tasks/multi_label.py [--quick]

The criterion is `nn.BCEWithLogitsLoss` with a weight for the positives of every label. The
evidence of a view is the sum of exp(-loss) over samples, the loss being averaged over labels: see
docs/tasks/multi_label.md. Data: mfeat, which comes with the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean, stdev

import torch
from torch import Tensor

import equimodal as eq
from equimodal import data, nn

VIEWS = ("fou", "mor", "zer")
PRINTED = ("evidence", "ratio", "coefficient")
LABELS = {
    "even": (0, 2, 4, 6, 8),
    "prime": (2, 3, 5, 7),
    "has a loop": (0, 6, 8, 9),
    "above four": (5, 6, 7, 8, 9),
}
ANSWERS = torch.zeros(10, len(LABELS))
for column, digits in enumerate(LABELS.values()):
    ANSWERS[list(digits), column] = 1


def f1(logits: Tensor, target: Tensor) -> float:
    """Return the F1 score averaged over labels, in percent."""
    found, true = logits > 0, target > 0.5
    hits = (found & true).sum(0)
    return 100 * (2 * hits / (found.sum(0) + true.sum(0)).clamp(min=1)).mean().item()


def train(
    method: eq.Method, splits: data.Splits, epochs: int, seed: int
) -> tuple[float, dict[str, float]]:
    """Return the F1 score on the test split, and what the balancer saw in the last epoch."""
    torch.manual_seed(seed)
    arrays = splits.train
    encoders = {name: nn.MLP(arrays.features[name].shape[1], (64,), 32) for name in VIEWS}
    model = nn.Multimodal(encoders, nn.Concat(dict.fromkeys(VIEWS, 32), classes=len(LABELS)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    positive = ANSWERS[arrays.target].mean(0)
    balancer = eq.Balancer(
        method,
        model,
        encoders,
        model.head,
        optimizer,
        criterion=torch.nn.BCEWithLogitsLoss(pos_weight=(1 - positive) / positive),
        seed=seed,
        track_every=1,
    )
    for epoch in range(epochs):
        seen = []
        for *views, digit in arrays.loader(64, shuffle=True, seed=1000 * seed + epoch):
            loss = balancer.loss(model(*views), ANSWERS[digit])
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(balancer.metrics())
        balancer.end_epoch()
    model.eval()
    with torch.no_grad():
        logits = model(*splits.test.features.values())
    return f1(logits, ANSWERS[splits.test.target]), {
        key: mean(s[key] for s in seen) for key in seen[0]
    }


def main() -> None:
    """Train plainly and with OGM-GE over several seeds, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 seeds of 2 epochs")
    epochs = 2 if parser.parse_args().quick else 15
    torch.set_num_threads(1)
    splits = data.load("mfeat", modalities=VIEWS)
    print(splits)
    methods: dict[str, Callable[[], eq.Method]] = {
        "plain": eq.Joint,
        "OGM-GE": lambda: eq.OGMGE(alpha=0.3),
    }
    for name, method in methods.items():
        runs = [train(method(), splits, epochs, seed) for seed in range(3)]
        scores = [score for score, _ in runs]
        print(f"{name:7} test F1 {mean(scores):.2f} +- {stdev(scores):.2f} %", end="")
        print(", by seed:", *(f"{score:.2f}" for score in scores))
        for view in VIEWS:
            of = {key: mean(seen.get(f"{key}/{view}", 1.0) for _, seen in runs) for key in PRINTED}
            print(f"    {view:5}", "  ".join(f"{key} {value:.3f}" for key, value in of.items()))


if __name__ == "__main__":
    main()
