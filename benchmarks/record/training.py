"""One training: a plain loop, the epoch chosen on validation data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from benchmarks.record.design import Design, Trial
from benchmarks.record.models import model_of
from benchmarks.record.sources import parts

import equimodal as eq
from equimodal.choosing.seeds import seed_all, seed_epoch
from equimodal.data.arrays import Arrays
from equimodal.methods import teachers_of
from equimodal.methods.registry import find
from equimodal.methods.supplied import takes_teachers
from equimodal.nn import Multimodal


def trained(design: Design, name: str, trial: Trial, seed: int) -> tuple[float, float]:
    """Train a row once, and return the accuracy on the validation and on the test split.

    Args:
        design: of the record.
        name: of the data set.
        trial: what is tried.
        seed: of initial values, order and noise.

    Returns:
        That of the epoch which is best on the validation split, the first of several.
    """
    best, reached = -1.0, 0.0
    _, val, test = parts(name)
    for balancer in _epochs(design, name, trial, seed):
        found = _accuracy(balancer, val)
        if found > best:
            best, reached = found, _accuracy(balancer, test)
    return best, reached


def _epochs(design: Design, name: str, trial: Trial, seed: int) -> Iterator[eq.Balancer]:
    """Train, and give the balancer after each epoch, before its last hook."""
    train, val, _ = parts(name)
    setting = design.sets[name]
    methods = [_made(design, name, trial, seed, each) for each in trial.options]
    model = _model(train, trial, seed)
    loader = train.loader(setting["batch"], shuffle=True, seed=seed)
    optimizer = _optimizer(design, trial, model)
    balancer = eq.Balancer(
        methods,
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        train_loader=loader,
        val_loader=val.loader(256),
        seed=seed,
        epochs=setting["epochs"],
    )
    with balancer:
        for epoch in range(setting["epochs"]):
            seed_epoch(seed, epoch, loader)
            model.train()
            for *inputs, target in balancer.batches(loader):
                if len(target) == 1:  # BatchNorm has nothing to go by
                    continue
                for _ in balancer.passes():
                    balancer.backward(balancer.loss(model(*inputs), target))
                balancer.modulate()
                optimizer.step()
                optimizer.zero_grad()
            yield balancer
            balancer.end_epoch()


def _made(design: Design, name: str, trial: Trial, seed: int, method: str) -> eq.Method:
    kind, options = find(method), dict(trial.options[method])
    if takes_teachers(kind):
        taught = _teachers(_Key((design, name, trial, seed)))
        options["teachers"] = copy.deepcopy(taught)
    return kind(**options)


class _Key(tuple[Any, ...]):
    """What teachers depend on: the method that they are for does not count."""

    def __hash__(self) -> int:
        _, name, trial, seed = self
        return hash((name, trial.condition, trial.rate, seed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and hash(self) == hash(other)


@lru_cache(maxsize=64)
def _teachers(key: _Key) -> Mapping[str, Any]:
    """Train every modality alone, as the row `ensemble` does; copies of the best epoch."""
    design, name, trial, seed = key
    own = Trial(trial.encoder, trial.optimizer, trial.rate, {"ensemble": {}})
    _, val, _ = parts(name)
    best, found = -1.0, {}
    for balancer in _epochs(design, name, own, seed):
        reached = _accuracy(balancer, val)
        if reached > best:
            best, found = reached, teachers_of(balancer, next(iter(val.loader(8))))
    return found


def _model(train: Arrays, trial: Trial, seed: int) -> Multimodal:
    seed_all(seed)
    classes = int(train.target.max()) + 1
    return model_of(train.shapes, classes, trial.encoder == "normalised")


def _optimizer(design: Design, trial: Trial, model: Multimodal) -> torch.optim.Optimizer:
    decay = design.decay[trial.optimizer]
    if trial.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=trial.rate, weight_decay=decay)
    return torch.optim.SGD(
        model.parameters(), lr=trial.rate, momentum=design.momentum, weight_decay=decay
    )


@torch.no_grad()
def _accuracy(balancer: eq.Balancer, of: Arrays) -> float:
    """Return the share that the model answers rightly by the rule of its method."""
    balancer.attached.model.eval()
    right = balancer.predict(*of.features.values()).argmax(dim=1) == of.target
    return float(right.double().mean())
