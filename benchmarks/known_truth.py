"""What the methods of the shortlist bring where the truth is known: `synthetic`, in a plain loop.

    python -m benchmarks.known_truth [--seeds N] [--only NAME ...]

A fast and a slow modality know equally much, and the best classifier there can be reaches 96.7%.
Twenty epochs of SGD at a rate of 0.05 on MLPs of width 128; what stands is the last epoch's
accuracy on the test split. Nothing is chosen, neither settings nor epochs. Printed are the rows of
`docs/methods/defaults.md`: the mean over seeds, and the paired difference to joint training, both
with 95% t intervals.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import equimodal as eq
from equimodal import data
from equimodal.compare.statistics import estimate
from equimodal.nn import MLP, Concat, Multimodal

EPOCHS = 20
METHODS = (
    "multi-loss", "amco", "arl", "cml", "dgl", "inforeg", "mcr", "mimo", "mmpareto",
    "modality-dropout", "mses", "pmr", "umt",
)  # fmt: skip
SPLITS = data.load("synthetic")


def model_of(seed: int) -> Multimodal:
    """Return a model whose initial values are of a seed."""
    torch.manual_seed(seed)
    names = SPLITS.modalities
    encoders = {name: MLP(16, hidden=(128,), features=64) for name in names}
    return Multimodal(encoders, Concat(dict.fromkeys(names, 64), classes=6))


def method_of(name: str, seed: int) -> eq.Method:
    """Return a method with its defaults; teachers are encoders that were trained alone."""
    if name != "umt":
        return eq.methods.find(name)()
    model = model_of(seed)
    balancer = trained(model, eq.Ensemble(), seed)
    teachers = eq.teachers_of(balancer, next(iter(SPLITS.train.loader(64))))
    balancer.detach()
    return eq.UMT(teachers)


def trained(model: Multimodal, method: eq.Method, seed: int) -> eq.Balancer:
    """Train a model by a method."""
    train = SPLITS.train.loader(64, shuffle=True, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    balancer = eq.Balancer(
        method,
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        train_loader=train,
        val_loader=SPLITS.val.loader(600),
        seed=seed,
        epochs=EPOCHS,
    )
    for _ in range(EPOCHS):
        for *inputs, target in balancer.batches(train):
            for _ in balancer.passes():
                loss = balancer.loss(model(*inputs), target)
                balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
    return balancer


@torch.no_grad()
def accuracy(model: nn.Module, balancer: eq.Balancer) -> float:
    """Return the accuracy on the test split, by the method's own rule."""
    model.eval()
    right = [
        balancer.predict(*inputs).argmax(dim=1) == target
        for *inputs, target in SPLITS.test.loader(600)
    ]
    return torch.cat(right).double().mean().item()


def reached(name: str, seed: int) -> float:
    """Return what a method reaches with a seed."""
    model = model_of(seed)
    balancer = trained(model, method_of(name, seed), seed)
    found = accuracy(model, balancer)
    balancer.detach()
    return found


def main() -> None:
    """Print the rows, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, counted from 0")
    parser.add_argument("--only", nargs="*", default=METHODS, help="names of methods")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seeds)
    joint = [reached("joint", seed) for seed in seeds]
    print("| method | accuracy | against joint |\n| --- | ---: | ---: |")
    print(f"| joint | {estimate(joint):} |  |", flush=True)
    for name in options.only:
        values = [reached(name, seed) for seed in seeds]
        against = estimate([one - other for one, other in zip(values, joint, strict=True)])
        print(f"| {name} | {estimate(values):} | {against:+} |", flush=True)


if __name__ == "__main__":
    main()
