"""UMT against a loop written from its equation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.distillation import feature_distance
from equimodal.methods.objective.umt import UMT
from equimodal.methods.teacher import Teacher
from support.teachers import teachers
from support.worlds import Net, World, batch, train, weights


def umt() -> eq.Method:
    return UMT(teachers())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_distance_equals_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    total = 0.0
    for z, t in zip(student.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(z, t, strict=True):
            total += (a - b) ** 2
    assert float(feature_distance(student, teacher)) == pytest.approx(total / 30, rel=1e-12)
    some = torch.tensor([True, False, True, True, False, False])
    expected = feature_distance(student[some], teacher[some])
    torch.testing.assert_close(feature_distance(student, teacher, some), expected)
    assert feature_distance(student, teacher, torch.zeros(6, dtype=torch.bool)) == 0


@pytest.mark.parametrize("modalities", [2, 3])
def test_training_equals_the_hand_written_loop(modalities: int) -> None:
    world, twin = World(modalities), World(modalities)
    batches = [batch(12, modalities, seed=seed) for seed in range(5)]
    train(world.balance(UMT(teachers(), weight=2.5)), batches)
    models = teachers()
    for *inputs, target in batches:
        features = {n: e(x) for (n, e), x in zip(twin.encoders.items(), inputs, strict=True)}
        logits = twin.model.head(torch.cat(list(features.values()), dim=1))
        loss = nn.functional.cross_entropy(logits, target)
        for (name, z), x in zip(features.items(), inputs, strict=True):
            with torch.no_grad():
                _, taught = models[name](x)
            loss = loss + 2.5 * nn.functional.mse_loss(z, taught)
        twin.optimizer.zero_grad()
        loss.backward()
        twin.optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


def test_a_sample_without_a_modality_is_not_taught_by_its_teacher() -> None:
    world = World()
    balancer = world.balance(umt())
    *inputs, target = batch(10)
    some = torch.arange(10) < 6
    balancer.loss(world.model(*inputs), target, present={"visual": some})
    found = balancer.metrics()
    balancer.loss(world.model(*(x[:6] for x in inputs)), target[:6])
    assert found["loss/umt/visual"] == pytest.approx(0.6 * balancer.metrics()["loss/umt/visual"])


class Skipping(Net):
    """Does not run an encoder whose modality the whole batch is without."""

    def forward(self, audio: Tensor, visual: Tensor | None) -> Tensor:  # type: ignore[override]
        heard = self.encoders["audio"](audio)
        seen = torch.zeros_like(heard) if visual is None else self.encoders["visual"](visual)
        return self.head(torch.cat([heard, seen], dim=1))


def test_a_modality_that_a_whole_batch_is_without_is_left_out() -> None:
    model = Skipping().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(umt(), model, model.encoders, model.head, optimizer)
    a, v, target = batch(10)
    balancer.loss(model(a, v), target)
    loss = balancer.loss(
        model(a, None), target, present={"visual": torch.zeros(10, dtype=torch.bool)}
    )
    heard, taught = model.encoders["audio"](a), teachers()["audio"](a)[1]
    logits = model.head(torch.cat([heard, torch.zeros_like(heard)], dim=1))
    expected = nn.functional.cross_entropy(logits, target)
    expected = expected + 10 * nn.functional.mse_loss(heard, taught)
    torch.testing.assert_close(loss, expected)


def test_features_with_places_are_compared_by_their_mean_over_places() -> None:
    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoders = nn.ModuleDict(
                {"audio": nn.Conv2d(1, 4, 3), "visual": nn.Conv2d(2, 4, 3)}
            )
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            maps = [self.encoders["audio"](a), self.encoders["visual"](v)]
            return self.head(torch.cat(maps, dim=1))

    torch.manual_seed(0)
    model = Maps()
    given = {
        "audio": Teacher(nn.Conv2d(1, 4, 3), nn.Linear(4, 3)),
        "visual": Teacher(nn.Conv2d(2, 4, 5), nn.Linear(4, 3)),
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(UMT(given, weight=1), model, model.encoders, model.head, optimizer)
    a, v = torch.randn(5, 1, 6, 6), torch.randn(5, 2, 6, 6)
    balancer.loss(model(a, v), torch.tensor([0, 1, 2, 0, 1]))
    with torch.no_grad():
        mine = model.encoders["visual"](v).mean(dim=(2, 3))
        expected = nn.functional.mse_loss(mine, given["visual"].encoder(v).mean(dim=(2, 3)))
    assert balancer.metrics()["loss/umt/visual"] == pytest.approx(float(expected))


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(eq.SetupError, match=r"UMT\(weight\): expected a number of 0 or more"):
        UMT(teachers(), weight)
