"""Diagnosing & Re-learning against NumPy loops, and against what its public code gets wrong."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from equimodal.functional.kmeans import kmeans, lloyd, spread_centres
from equimodal.functional.relearning import purity, relearning_strength, scale_columns
from equimodal.methods.schedule.diagnosing_relearning import DiagnosingRelearning
from support.slow import splitmix
from support.worlds import World, batch, train, weights

Array = NDArray[np.float64]


def every_epoch() -> eq.Method:
    return DiagnosingRelearning(every=1, times=2)


# ---------------------------------------------------------------------- twins, one point at a time


def distance(a: Array, b: Array) -> float:
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def slow_start(points: Array, clusters: int, draws: list[float]) -> Array:
    """k-means++ by hand, from the given uniform draws."""
    chosen = [points[int(draws[0] * len(points))]]
    for draw in draws[1:]:
        nearest = [min(distance(p, c) for c in chosen) for p in points]
        threshold, reached, pick = draw * sum(nearest), 0.0, len(points) - 1
        for index, each in enumerate(nearest):
            reached += each
            if reached > threshold:
                pick = index
                break
        chosen.append(points[pick])
    return np.stack(chosen)


def slow_lloyd(points: Array, centres: Array) -> tuple[list[int], float]:
    groups: list[int] = []
    while True:
        nearest = [int(np.argmin([distance(p, c) for c in centres])) for p in points]
        if nearest == groups:
            inertia = sum(distance(p, centres[g]) for p, g in zip(points, groups, strict=True))
            return groups, inertia
        groups = nearest
        means = []
        for k, centre in enumerate(centres):
            members = [p for p, g in zip(points, groups, strict=True) if g == k]
            means.append(sum(members) / len(members) if members else centre)
        centres = np.stack(means)


def slow_kmeans(points: Array, clusters: int, seed: int, restarts: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    best: tuple[list[int], float] | None = None
    for _ in range(restarts):
        draws = torch.rand(clusters, dtype=torch.float64, generator=generator).tolist()
        found = slow_lloyd(points, slow_start(points, clusters, draws))
        if best is None or found[1] < best[1]:
            best = found
    assert best is not None
    return best[0]


def slow_purity(groups: list[int], target: list[int]) -> float:
    right = 0
    for group in set(groups):
        labels = [y for g, y in zip(groups, target, strict=True) if g == group]
        right += max(labels.count(y) for y in labels)
    return right / len(target)


def slow_scaled(points: Array) -> Array:
    columns = []
    for column in points.T:
        low, high = min(column), max(column)
        columns.append([-1 + 2 * (x - low) / (high - low) if high > low else -1.0 for x in column])
    return np.array(columns).T


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kmeans_equals_the_twin(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    expected = slow_kmeans(points.numpy(), 4, seed=seed, restarts=5)
    assert kmeans(points, 4, seed=seed, restarts=5).tolist() == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_purity_and_scaling_equal_the_twins(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(4, (30,), generator=generator)
    target = torch.randint(3, (30,), generator=generator)  # the last class is absent
    found = purity(groups, target, classes=4)
    assert float(found) == pytest.approx(slow_purity(groups.tolist(), target.tolist()), rel=1e-12)
    points = torch.randn(30, 4, dtype=torch.float64, generator=generator)
    points[:, 2] = 5.0
    np.testing.assert_allclose(scale_columns(points).numpy(), slow_scaled(points.numpy()))


def test_kmeans_finds_groups_that_are_there_and_repeats() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(5, 6, generator=generator)
    truth = torch.arange(100) % 5
    points = 1000 + centres[truth] + torch.randn(100, 6, generator=generator)
    groups = kmeans(points, 5)
    assert float(purity(groups, truth, classes=5)) == 1
    torch.manual_seed(1)
    assert torch.equal(kmeans(points, 5), groups)
    assert not torch.equal(kmeans(points, 5, seed=1, restarts=1), groups)


def test_kmeans_of_fewer_points_than_groups() -> None:
    """Absent classes: some groups stay empty, and nothing becomes NaN."""
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 0.0]])
    groups = kmeans(points, 5)
    assert groups[1] == groups[2] != groups[0]
    assert spread_centres(points, 5, torch.Generator().manual_seed(0)).isfinite().all()
    labels, inertia = lloyd(points, torch.tensor([[0.0, 0.0], [9.0, 9.0], [3.0, 0.0]]))
    assert (labels.tolist(), float(inertia)) == ([0, 2, 2], 0.0)


# ---------------------------------------------------------------------- a training by hand


def loaders(modalities: int = 2) -> dict[str, Any]:
    train_set = TensorDataset(*batch(45, modalities))
    held_out = TensorDataset(*batch(20, modalities, seed=2))
    return {"train_loader": DataLoader(train_set, 10), "val_loader": DataLoader(held_out, 8)}


@pytest.mark.parametrize("modalities", [2, 3])
def test_equals_the_hand_written_training(modalities: int) -> None:
    """Four epochs, diagnosed after the second only: by then two were asked for, but one is left."""
    batches = [batch(15, modalities, seed=seed) for seed in range(3)]
    world, twin = World(modalities), World(modalities)
    method = DiagnosingRelearning(5.0, every=2, times=1, restarts=3)
    balancer = world.balance(method, **loaders(modalities))
    initial = copy.deepcopy(twin.model.encoders.state_dict())
    for epoch in range(4):
        train(balancer, batches)
        balancer.end_epoch()
        for *inputs, target in batches:
            twin.optimizer.zero_grad()
            nn.functional.cross_entropy(twin.model(*inputs), target).backward()
            twin.optimizer.step()
        if epoch != 1:
            continue
        alphas = []
        for index, (name, encoder) in enumerate(twin.encoders.items()):
            purities = []
            for data in (batch(45, modalities), batch(20, modalities, seed=2)):
                with torch.no_grad():
                    scaled = slow_scaled(encoder(data[index]).numpy())
                groups = slow_kmeans(scaled, 3, splitmix(0, 1), restarts=3)
                purities.append(slow_purity(groups, data[-1].tolist()))
            alphas.append(math.tanh(5 * abs(purities[0] - purities[1])))
            with torch.no_grad():
                for key, parameter in encoder.named_parameters():
                    old = initial[f"{name}.{key}"]
                    parameter.copy_(alphas[-1] * old + (1 - alphas[-1]) * parameter)
        assert method.alphas.tolist() == pytest.approx(alphas, rel=1e-9)
        assert any(alpha > 0.01 for alpha in alphas)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- what is touched


class Normalised(testing.SmallModel):
    """With BatchNorm, and a layer outside of the encoders whose name has a modality in it."""

    def __init__(self) -> None:
        super().__init__()
        for encoder in self.encoders.values():
            assert isinstance(encoder, nn.Sequential)
            encoder.insert(1, nn.BatchNorm1d(7))
        self.audio_head = nn.Linear(16, 16)

    def forward(self, *inputs: Tensor) -> Tensor:
        pairs = zip(self.encoders.values(), inputs, strict=True)
        features = torch.cat([encoder(x) for encoder, x in pairs], dim=1)
        logits: Tensor = self.head(self.audio_head(features))
        return logits


def test_only_the_encoders_parameters_go_back() -> None:
    """By module, not by the name of the modality in a parameter's name, as in BalanceMM."""
    torch.manual_seed(0)
    model = Normalised().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    balancer = eq.Balancer(
        DiagnosingRelearning(1e9, every=1),  # alpha is 1 wherever there is a gap
        model,
        dict(model.encoders.items()),
        model.audio_head,
        optimizer,
        scores=eq.Probe(),
        epochs=2,
        **loaders(),
    )
    initial = copy.deepcopy(model.state_dict())
    for seed in range(3):
        *inputs, target = batch(15, seed=seed)
        balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    before = copy.deepcopy(model.state_dict())
    momentum = copy.deepcopy(optimizer.state_dict()["state"])
    balancer.end_epoch()
    (method,) = balancer.methods.methods
    gone = {n for n, a in zip(balancer.names, method.alphas.tolist(), strict=True) if a == 1}
    assert gone, "no encoder has a gap: choose another seed"
    for key, value in model.state_dict().items():
        encoder = key.split(".")[1] if key.startswith("encoders.") else None
        back = encoder in gone and "running" not in key and "num_batches" not in key
        assert torch.equal(value, initial[key] if back else before[key]), key
    assert str(optimizer.state_dict()["state"]) == str(momentum), "momentum is left as it is"


def test_momentum_is_forgotten_if_asked() -> None:
    world = World()
    method = DiagnosingRelearning(every=1, reset_momentum=True)
    balancer = world.balance(method, **loaders())
    train(balancer, [batch(15)])
    balancer.end_epoch()
    left = set(world.optimizer.state)
    assert left == set(world.model.head.parameters())


def test_a_gap_of_zero_changes_nothing() -> None:
    """Training and held-out data are the same: there is nothing to unlearn."""
    world = World()
    same = DataLoader(TensorDataset(*batch(30)), 10)
    method = DiagnosingRelearning(every=1)
    balancer = world.balance(method, train_loader=same, val_loader=same)
    train(balancer, [batch(15)])
    before = weights(world.model)
    balancer.end_epoch()
    assert torch.equal(weights(world.model), before)
    assert method.alphas.tolist() == [0, 0]


def test_ignored_samples_and_the_labels_of_the_loader_are_left_alone() -> None:
    """BalanceMM's call changes labels in place."""
    *inputs, target = batch(30)
    marked = target.clone()
    marked[::5] = -100
    kept = marked.clone()
    world = World()
    method = DiagnosingRelearning(every=1)
    balancer = world.balance(
        method,
        train_loader=DataLoader(TensorDataset(*inputs, marked), 10),
        val_loader=DataLoader(
            TensorDataset(*(x[marked >= 0] for x in inputs), target[marked >= 0]), 8
        ),
    )
    train(balancer, [(*inputs, marked)])
    balancer.end_epoch()
    assert method.alphas.tolist() == [0, 0]  # the same samples count on both sides
    assert torch.equal(marked, kept)


def test_a_snapshot_survives_a_restart_in_the_first_epoch() -> None:
    straight, first = World(), World()
    whole = straight.balance(DiagnosingRelearning(every=1), **loaders())
    half = first.balance(DiagnosingRelearning(every=1), **loaders())
    train(whole, [batch(15), batch(15, seed=2)])
    train(half, [batch(15)])
    saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict()))
    resumed_world = World(seed=9)
    resumed_world.model.load_state_dict(saved[0])
    resumed_world.optimizer.load_state_dict(saved[1])
    resumed = resumed_world.balance(DiagnosingRelearning(every=1), **loaders())
    resumed.load_state_dict(half.state_dict())
    train(resumed, [batch(15, seed=2)])
    whole.end_epoch()
    resumed.end_epoch()
    assert torch.equal(weights(straight.model), weights(resumed_world.model))


# ---------------------------------------------------------------------- refusals


def test_an_iterator_that_is_spent_is_named() -> None:
    world = World()
    given = loaders()
    balancer = world.balance(
        DiagnosingRelearning(every=1), **{**given, "val_loader": iter(given["val_loader"])}
    )
    train(balancer, [batch(15)])
    balancer.end_epoch()
    train(balancer, [batch(15)])
    with pytest.raises(eq.SetupError, match="passed over again"):
        balancer.end_epoch()


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    *inputs, _ = batch(20)
    targets = torch.rand(20, 3, dtype=torch.float64)
    data = DataLoader(TensorDataset(*inputs, targets), 10)
    balancer = world.balance(
        DiagnosingRelearning(every=1),
        train_loader=data,
        val_loader=data,
        criterion=nn.functional.mse_loss,
    )
    train(balancer, [(*inputs, targets)])
    with pytest.raises(
        eq.MatchError, match=r"DiagnosingRelearning.*one class per sample.*\(10, 3\)"
    ):
        balancer.end_epoch()


def test_held_out_data_must_be_given() -> None:
    with pytest.raises(eq.SetupError, match=r"needs held-out data.*val_loader"):
        World().balance(DiagnosingRelearning(), train_loader=loaders()["train_loader"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strength": -1}, ["strength", "-1"]),
        ({"strength": math.inf}, ["strength", "inf"]),
        ({"every": 0}, ["every", "0"]),
        ({"times": 0}, ["times", "0"]),
        ({"restarts": 0}, ["restarts", "0"]),
    ],
)
def test_bad_settings_are_refused(settings: Any, words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        DiagnosingRelearning(**settings)
    for word in words:
        assert word in str(caught.value)


def test_strength_zero_never_goes_back() -> None:
    gaps = relearning_strength(torch.tensor([0.9]), torch.tensor([0.1]), 0.0)
    assert gaps.tolist() == [0]
