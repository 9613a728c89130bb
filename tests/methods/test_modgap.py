"""ModGap against loops over samples, and numbers of the released losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import equimodal as eq
from equimodal.functional.modgap import symmetric_contrast, uniformity
from equimodal.methods.objective.modgap import ModGap
from support.worlds import World, batch, train, weights


def by_hand(features: list[Any]) -> Any:
    """The three terms, one sample and one pair of samples at a time, weighted 1, 2 and 3."""
    units = [[row / row.square().sum().sqrt() for row in z] for z in features]
    size, parts = len(units[0]), []
    for a, b in itertools.combinations(units, 2):
        term: Any = 0
        for i in range(size):
            own = (a[i] @ b[i] / 0.5).exp()
            along = sum((a[i] @ b[j] / 0.5).exp() for j in range(size))
            across = sum((a[j] @ b[i] / 0.5).exp() for j in range(size))
            term = term - ((own / along).log() + (own / across).log()) / 2 / size
            term = term + 2 * ((a[i] - b[i]) ** 2).sum() / size
        parts.append(term)
    centroids = [sum(rows) for rows in zip(*units, strict=True)]
    centroids = [c / c.square().sum().sqrt() for c in centroids]
    near = [(-2 * ((a - b) ** 2).sum()).exp() for a, b in itertools.combinations(centroids, 2)]
    return sum(parts) / len(parts) + 3 * (sum(near) / len(near)).log()


@pytest.mark.parametrize("modalities", [2, 3])
def test_equals_the_hand_written_loop(modalities: int) -> None:
    ours, theirs = World(modalities), World(modalities)
    batches = [batch(6, modalities, seed=i) for i in range(3)]
    method = ModGap(0.3, temperature=0.5, alignment=2.0, uniformity=3.0)
    train(ours.balance(method), batches)
    for *inputs, target in batches:
        features = [e(x) for e, x in zip(theirs.encoders.values(), inputs, strict=True)]
        joint = F.cross_entropy(theirs.model.head(torch.cat(features, 1)), target)
        theirs.optimizer.zero_grad()
        (joint + 0.3 * by_hand(features)).backward()
        theirs.optimizer.step()
    torch.testing.assert_close(weights(ours.model), weights(theirs.model), rtol=1e-8, atol=1e-10)


RELEASED = (
    [[1.54, -0.29, -2.18], [0.57, -1.08, -1.4], [0.4, 0.84, -0.72], [-0.4, -0.6, 0.18]],
    [[-0.86, 1.1, -1.07], [0.12, -0.57, 0.37], [-0.89, -1.51, 0.37], [1.46, 0.94, 0.77]],
)
CONTRAST, ALIGNED, UNIFORM = 13.25275531821762, 2.668382204887343, -2.536070808968799


def test_numbers_of_the_released_losses() -> None:
    one, two = (F.normalize(torch.tensor(z, dtype=torch.float64), dim=1) for z in RELEASED)
    assert symmetric_contrast(one, two, 0.07).item() == pytest.approx(CONTRAST, rel=1e-9)
    assert (one - two).square().sum(1).mean().item() == pytest.approx(ALIGNED, rel=1e-9)
    centroids = F.normalize(one + two, dim=1)
    assert uniformity(centroids).item() == pytest.approx(UNIFORM, rel=1e-9)


def test_missing_samples_take_no_part() -> None:
    one, two = F.normalize(torch.randn(2, 6, 3).double(), dim=2)
    there = torch.tensor([True, False, True, True, False, True])
    torch.testing.assert_close(
        symmetric_contrast(one, two, 0.5, there), symmetric_contrast(one[there], two[there], 0.5)
    )
    torch.testing.assert_close(uniformity(one, there), uniformity(one[there]))


@pytest.mark.parametrize("many", [0, 1])
def test_nobody_to_compare_with_gives_zero_and_finite_gradients(many: int) -> None:
    world = World()
    balancer = world.balance(ModGap())
    *inputs, target = batch(4)
    present = {"audio": torch.arange(4) < many}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
    gradients = [p.grad for p in world.model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert uniformity(torch.eye(4)[:, :2], torch.arange(4) < many) == 0


def test_the_gap_closes() -> None:
    """Cosines of pairs rise, where the task alone leaves them as they are."""
    found = []
    for method in (eq.Joint(), ModGap(1.0)):
        world = World()
        train(world.balance(method), [batch(24, seed=i % 3) for i in range(60)])
        *inputs, _ = batch(24, seed=9)
        with torch.no_grad():
            z = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        found.append(F.cosine_similarity(*z).mean().item())
    assert found[1] > found[0] + 0.2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ModGap(-1.0), r"ModGap\(weight\)"),
        (lambda: ModGap(temperature=0.0), r"ModGap\(temperature\).*above 0"),
        (lambda: ModGap(uniformity=math.nan), r"ModGap\(uniformity\)"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        make()
