"""One training: a plain loop, the epoch chosen on validation data, the test split touched once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from benchmarks.ogm_ge_map.design import Trial
from torch import Tensor, nn

import equimodal as eq
from equimodal import data
from equimodal.data.arrays import Arrays
from equimodal.nn import MLP, CNN1d, Concat, Multimodal

HIDDEN, FEATURES = 64, 32
VAL, TEST = 400, 1200
OPTIMIZERS: Mapping[str, Any] = {
    "sgd": lambda parameters, rate: torch.optim.SGD(parameters, lr=rate, momentum=0.9),
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, lr=rate),
}
COEFFICIENTS: Mapping[str, Any] = {"thresholded": eq.Thresholded, "continuous": eq.Continuous}
Batch = tuple[list[Tensor], Tensor]


def trained(
    setting: Mapping[str, Any], method: Mapping[str, Any], name: str, trial: Trial, seed: int
) -> tuple[float, float]:
    """Train once, and return the accuracy on the validation and on the test split.

    Args:
        setting: of `settings.json`.
        method: of `settings.json`; how OGM-GE is made.
        name: "joint", "multi-loss" or "ogm-ge".
        trial: what it is tried with.
        seed: of the samples where they are drawn, of initial values, order and noise.

    Returns:
        That of the epoch which is best on the validation split, the first of several.
    """
    train, val, test = splits_of(setting, seed)
    model = model_of(setting, train[0], seed)
    optimizer = OPTIMIZERS[setting["optimizer"]](model.parameters(), trial.rate)
    balancer = eq.Balancer(
        made(name, method, trial),
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        seed=seed,
        epochs=setting["epochs"],
    )
    order = torch.Generator().manual_seed(seed)
    inputs, target = train
    best, reached = -1.0, 0.0
    for _ in range(setting["epochs"]):
        shuffled = torch.randperm(len(target), generator=order)
        for rows in torch.split(shuffled, setting["batch"]):
            loss = balancer.loss(model(*[each[rows] for each in inputs]), target[rows])
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
        found = accuracy(model, val)
        if found > best:
            best, reached = found, accuracy(model, test)
    balancer.detach()
    return best, reached


def made(name: str, method: Mapping[str, Any], trial: Trial) -> eq.Method | list[eq.Method]:
    """Return a method as it is tried; joint training for "joint"."""
    if name == "joint":
        return eq.Joint()
    assert trial.knob is not None, f"{name} is tried without its knob"
    if name == "multi-loss":
        return eq.MultiLoss(trial.knob)
    kind = eq.OGMGE if method["noise"] else eq.OGM
    coefficient = COEFFICIENTS[method["coefficient"]]()
    ogm = kind(trial.knob, coefficient=coefficient, space=method["space"])
    return [ogm, eq.MultiLoss()] if method["unimodal"] else ogm


def model_of(setting: Mapping[str, Any], inputs: list[Tensor], seed: int) -> Multimodal:
    """Return a model whose initial values are of a seed."""
    torch.manual_seed(seed)
    classes = {"synthetic": 6, "watch": 7, "mfeat": 10}[setting["data"]]
    names = setting["modalities"]
    encoders = {
        name: _encoder(each.shape[1:], setting["normalised"])
        for name, each in zip(names, inputs, strict=True)
    }
    return Multimodal(encoders, Concat(dict.fromkeys(names, FEATURES), classes=classes))


def _encoder(shape: torch.Size, normalised: bool) -> nn.Module:
    if len(shape) == 2:
        return CNN1d(shape[0], features=FEATURES)
    if not normalised:
        return MLP(shape[0], hidden=(HIDDEN,), features=FEATURES)
    lower = [nn.Linear(shape[0], HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()]
    return nn.Sequential(*lower, nn.Linear(HIDDEN, FEATURES))


def splits_of(setting: Mapping[str, Any], seed: int) -> list[Batch]:
    """Return train, validation and test data; those of `synthetic` are drawn by the seed."""
    if setting["data"] != "synthetic":
        return _read(setting["data"], tuple(setting["modalities"]))
    first, second = setting["modalities"]
    drawn = data.Synthetic(
        dict(zip((first, second), setting["informed"], strict=True)),
        speed={second: setting["speed"]},
        redundancy=setting["redundancy"],
        synergy=setting["synergy"],
        sizes=(setting["samples"], VAL, TEST),
        seed=seed,
    ).splits()
    train, val, test = (_batch(each) for each in (drawn.train, drawn.val, drawn.test))
    generator = torch.Generator().manual_seed(seed)
    wrong = [(x, mislabelled(y, setting["noise"], 6, generator)) for x, y in (train, val)]
    return [*wrong, test]


def mislabelled(target: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return labels of which a share, in expectation, is another class, drawn evenly."""
    wrong = torch.rand(len(target), generator=generator) < share
    away = torch.randint(1, classes, (len(target),), generator=generator)
    return torch.where(wrong, (target + away) % classes, target)


@lru_cache
def _read(name: str, modalities: tuple[str, ...]) -> list[Batch]:
    found = data.load(name, modalities=modalities)
    return [_batch(each) for each in (found.train, found.val, found.test)]


def _batch(of: Any) -> Batch:
    assert isinstance(of, Arrays)
    return [of.features[name] for name in of.modalities], of.target


@torch.no_grad()
def accuracy(model: nn.Module, batch: Batch) -> float:
    """Return the share that a model answers rightly, and leave it in training mode."""
    inputs, target = batch
    model.eval()
    right = model(*inputs).argmax(dim=1) == target
    model.train()
    return float(right.double().mean())
