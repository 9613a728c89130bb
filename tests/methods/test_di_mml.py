"""DI-MML against a training by hand, its choice of dimensions, and numbers of the released code."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.functional.di_mml import confidence_weighted, one_way_contrast
from equimodal.methods.objective.di_mml import DIMML
from support.worlds import World, batch, train, weights

SAMPLES, SIZE = 20, 8


def attach(modalities: int, seed: int) -> tuple[World, eq.Balancer, DIMML, list[Any]]:
    world = World(modalities, seed=seed, lr=0.05)
    loader = DataLoader(TensorDataset(*batch(SAMPLES, modalities, seed=seed + 3)), SIZE)
    method = DIMML(2.0, weight=0.7, vote=0.5, contrast=1, encoding=3)
    balancer = world.balance(method, train_loader=loader, epochs=4)
    shapes = eq.Shapes(
        dict.fromkeys(world.encoders, (8,)), (3,), torch.device("cpu"), torch.float64
    )
    balancer.make_modules(shapes)
    return world, balancer, method, list(loader)


def dimensions(z: Tensor, target: Tensor) -> set[int]:
    """Those by which alone more samples than usual are nearest to their own class's mean."""
    shares = []
    for d in range(z.shape[1]):
        values = z[:, d].tolist()
        means = {}
        for c in sorted(set(target.tolist())):
            of = [v for v, y in zip(values, target.tolist(), strict=True) if y == c]
            means[c] = sum(of) / len(of)
        right = [
            min(means, key=lambda c: abs(v - means[c])) == y
            for v, y in zip(values, target.tolist(), strict=True)
        ]
        shares.append(sum(right) / len(right))
    return {d for d, s in enumerate(shares) if s > sum(shares) / len(shares)}


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2)])
def test_equals_the_training_by_hand(modalities: int, seed: int) -> None:
    world, balancer, method, batches = attach(modalities, seed)
    twin = World(modalities, seed=seed, lr=0.05)
    heads, shared = copy.deepcopy(method.readouts.layers), copy.deepcopy(method.shared)[0]
    own = torch.optim.SGD(
        [*heads.parameters(), *shared.parameters()], lr=0.05, momentum=0.9, weight_decay=1e-2
    )
    encoders = list(twin.encoders.values())
    chosen: list[set[int]] = []
    for epoch in range(4):
        train(balancer, batches)
        balancer.end_epoch()
        for *inputs, target in batches:
            features = [e(x) for e, x in zip(encoders, inputs, strict=True)]
            loss: Any = 0
            if epoch < 3:
                for z, head in zip(features, heads, strict=True):
                    loss = loss + F.cross_entropy(head(z), target)
                    loss = loss + 0.7 * F.cross_entropy(shared(z), target)
                for s, t in itertools.permutations(range(modalities), 2) if epoch >= 1 else ():
                    only = sorted(chosen[t] - chosen[s])
                    for i in range(len(target)):
                        teachers = features[t][:, only].detach()
                        logits = (teachers * features[s][i, only]).sum(dim=1) / 2
                        pulled = logits[i] - logits.exp().sum().log()
                        loss = loss - pulled / len(target) / (modalities - 1)
            else:
                loss = F.cross_entropy(twin.model.head(torch.cat(features, 1)), target)
            twin.optimizer.zero_grad()
            own.zero_grad()
            loss.backward()
            for p in (
                twin.model.head.parameters() if epoch < 3 else twin.model.encoders.parameters()
            ):
                p.grad = None
            if epoch == 3:
                own.zero_grad()
            twin.optimizer.step()
            own.step()
        if epoch == 0:
            *inputs, target = (torch.cat(each) for each in zip(*batches, strict=True))
            with torch.no_grad():
                chosen = [dimensions(e(x), target) for e, x in zip(encoders, inputs, strict=True)]
            assert any(chosen[0] ^ chosen[1]), "no dimension speaks for one modality alone"
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(weights(method.readouts), weights(heads), rtol=1e-8, atol=1e-10)
    *inputs, _ = batches[0]
    with torch.no_grad():
        features = [e(x) for e, x in zip(encoders, inputs, strict=True)]
        logits = [h(z) for h, z in zip(heads, features, strict=True)]
        logits.append(twin.model.head(torch.cat(features, 1)))
        expected = torch.zeros_like(logits[0])
        for i in range(len(expected)):
            sure = [math.exp(u[i].softmax(0).max().item() / 0.5) for u in logits]
            for u, w in zip(logits, sure, strict=True):
                expected[i] += w / sum(sure) * u[i]
        torch.testing.assert_close(balancer.predict(*inputs), expected, rtol=1e-8, atol=1e-10)


def test_before_the_second_stage_the_untrained_head_has_no_vote() -> None:
    _, balancer, _, batches = attach(2, 0)
    for _ in range(3):
        train(balancer, batches)
        balancer.end_epoch()
    *inputs, _ = batches[0]
    with torch.no_grad():
        alone = torch.stack(list(balancer.unimodal_logits(*inputs).values()))
        found = balancer.predict(*inputs)
    torch.testing.assert_close(found, confidence_weighted(alone, 0.5))


AUDIO = [
    [-2.31, -0.37, -1.06, 1.0, -0.02],
    [0.21, 0.18, -0.83, 0.24, 0.73],
    [-1.32, 1.31, -0.69, 1.49, -0.45],
    [-0.89, 0.67, 1.05, 0.15, -0.75],
]
VIDEO = [
    [-1.27, -1.12, 1.17, 0.93, -1.04],
    [0.97, -0.07, 0.87, 0.99, 0.11],
    [0.14, 1.07, -0.76, 1.32, 0.06],
    [-1.0, 0.84, -0.29, -0.58, -3.48],
]
BOTH, ONE = (
    2.211531968582303,
    2.2367806802941907,
)  # of four samples, with temperature 2, and 1 on one side alone


def test_numbers_of_the_released_code() -> None:
    audio = torch.tensor(AUDIO, dtype=torch.float64)
    video = torch.tensor(VIDEO, dtype=torch.float64)
    one, two = (torch.zeros(5).double() for _ in range(2))
    one[[0, 3]], two[1] = 1, 1
    both = one_way_contrast(video * one, audio * one, 2.0) + one_way_contrast(
        audio * two, video * two, 2.0
    )
    assert both.item() == pytest.approx(BOTH, rel=1e-9)
    empty = one_way_contrast(audio * 0, video * 0, 1.0)
    assert (one_way_contrast(video * one, audio * one, 1.0) + empty).item() == pytest.approx(
        ONE, rel=1e-9
    )


def test_missing_samples_take_no_part() -> None:
    learner, teacher = torch.randn(2, 6, 3).double()
    there = torch.tensor([True, False, True, True, False, True])
    found = one_way_contrast(learner, teacher, 1.5, there)
    torch.testing.assert_close(found, one_way_contrast(learner[there], teacher[there], 1.5))
    assert one_way_contrast(learner, teacher, 1.5, torch.zeros(6).bool()) == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DIMML(0.0), r"DIMML\(temperature\)"),
        (lambda: DIMML(weight=-1.0), r"DIMML\(weight\)"),
        (lambda: DIMML(contrast=0), r"DIMML\(contrast\).*found 0"),
        (lambda: DIMML(encoding=0), r"DIMML\(encoding\).*found 0"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        make()
