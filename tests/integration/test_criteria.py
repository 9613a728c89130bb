"""Evidence for any loss: classification, multi-label, regression, dense; and what does not fit."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.criterion import Criterion
from support.worlds import Net, World, batch, train, weights

generator = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


CLASSES = torch.tensor([0, 2, 1, -100, 2, 1])
WEIGHT = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)

CASES: list[tuple[str, Any, Tensor, Tensor, Any]] = [
    # name, criterion, logits, target, per-sample loss of (logits, target) by hand
    ("default", F.cross_entropy, randn(6, 3), CLASSES.clamp(min=0),
     lambda u, y: -u.log_softmax(0)[y]),
    ("ignored", nn.CrossEntropyLoss(), randn(6, 3), CLASSES,
     lambda u, y: -u.log_softmax(0)[y] if y >= 0 else torch.zeros(())),
    ("weighted", nn.CrossEntropyLoss(weight=WEIGHT), randn(6, 3), CLASSES.clamp(min=0),
     lambda u, y: -WEIGHT[y] * u.log_softmax(0)[y]),
    ("smoothed", nn.CrossEntropyLoss(label_smoothing=0.1), randn(6, 3), CLASSES.clamp(min=0),
     lambda u, y: -(0.9 * u.log_softmax(0)[y] + 0.1 * u.log_softmax(0).mean())),
    ("summed", nn.CrossEntropyLoss(reduction="sum"), randn(6, 3), CLASSES.clamp(min=0),
     lambda u, y: -u.log_softmax(0)[y]),
    ("soft targets", F.cross_entropy, randn(6, 3), randn(6, 3).softmax(1),
     lambda u, y: -(y * u.log_softmax(0)).sum()),
    ("partial", functools.partial(F.cross_entropy, label_smoothing=0.2, ignore_index=1),
     randn(6, 3), CLASSES.clamp(min=0),
     lambda u, y: torch.zeros(()) if y == 1 else -(0.8 * u.log_softmax(0)[y] + 0.2 * u.log_softmax(0).mean())),
    ("multi-label", nn.BCEWithLogitsLoss(), randn(6, 4), (randn(6, 4) > 0).double(),
     lambda u, y: -(y * F.logsigmoid(u) + (1 - y) * F.logsigmoid(-u)).mean()),
    ("regression", nn.MSELoss(), randn(6, 2), randn(6, 2), lambda u, y: ((u - y) ** 2).mean()),
    ("huber", nn.HuberLoss(), randn(6), randn(6),
     lambda u, y: 0.5 * (u - y) ** 2 if abs(u - y) < 1 else abs(u - y) - 0.5),
    ("dense", nn.CrossEntropyLoss(), randn(6, 3, 2, 2), CLASSES.view(6, 1, 1).expand(6, 2, 2).clone(),
     lambda u, y: -sum(u.log_softmax(0)[y[i, j], i, j] for i in range(2) for j in range(2)) / 4
     if y[0, 0] >= 0 else torch.zeros(())),
    ("own, per sample", lambda u, y: (u[:, 0] - y).abs(), randn(6, 2), randn(6), lambda u, y: abs(u[0] - y)),
    ("own, a scalar", lambda u, y: F.cross_entropy(u * 2, y), randn(6, 3), CLASSES.clamp(min=0),
     lambda u, y: -(2 * u).log_softmax(0)[y]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "loss", "logits", "target", "by_hand"), CASES, ids=[c[0] for c in CASES]
)
def test_read_per_sample(
    name: str, loss: Any, logits: Tensor, target: Tensor, by_hand: Any
) -> None:
    found = Criterion(loss).per_sample(logits, target)
    expected = torch.stack(
        [torch.as_tensor(by_hand(u, y)) for u, y in zip(logits, target, strict=True)]
    )
    torch.testing.assert_close(found, expected.to(found), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "loss", "logits", "target", "by_hand"), CASES, ids=[c[0] for c in CASES]
)
def test_total_is_the_users_and_equal_weights_give_it_too(
    name: str, loss: Any, logits: Tensor, target: Tensor, by_hand: Any
) -> None:
    criterion = Criterion(loss)
    value = loss(logits, target)
    torch.testing.assert_close(criterion.total(logits, target), value.mean())
    if name != "summed":
        found = criterion.weighted(logits, target, torch.full((6,), 0.5))
        torch.testing.assert_close(found, value.mean())


@pytest.mark.parametrize(
    "name", ["default", "ignored", "weighted", "multi-label", "regression", "dense"]
)
def test_weight_zero_drops_a_sample(name: str) -> None:
    (_, loss, logits, target, _) = next(case for case in CASES if case[0] == name)
    weight = torch.tensor([1.0, 0, 1, 1, 0, 1])
    found = Criterion(loss).weighted(logits, target, weight)
    kept = weight.bool()
    torch.testing.assert_close(found, loss(logits[kept], target[kept]))


def test_all_weights_zero_is_zero_and_not_nan() -> None:
    (_, loss, logits, target, _) = CASES[0]
    assert Criterion(loss).weighted(logits, target, torch.zeros(6)) == 0
    scaled = logits.clone().requires_grad_()  # by a loss scale: the gradient is 0, and not NaN
    (2.0**16 * Criterion(loss).weighted(scaled, target, torch.zeros(6))).backward()
    assert not scaled.grad.any()


def test_ignored_samples_do_not_count_as_evidence() -> None:
    world, few = World(), World()
    *inputs, target = batch()
    target[::3] = -100
    kept = target >= 0
    one = world.balance(eq.OGM(0.8), track_every=1)
    other = few.balance(eq.OGM(0.8), track_every=1)
    train(one, [(*inputs, target)])
    train(other, [(*(x[kept] for x in inputs), target[kept])])
    for name, value in other.metrics().items():
        assert one.metrics()[name] == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(weights(world.model), weights(few.model))


class Regressor(Net):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs).squeeze(1)


@pytest.mark.parametrize(
    "head", [None, nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 1))]
)
def test_regression_with_a_temperature(head: Any) -> None:
    world = World(classes=1, head=head)
    world.model.__class__ = Regressor
    scores = eq.Ablation(temperature=4.0)
    balancer = world.balance(eq.OGM(0.5), criterion=nn.MSELoss(), scores=scores, track_every=1)
    a, v, target = batch()
    features = [e(x).detach() for e, x in zip(world.encoders.values(), (a, v), strict=True)]
    alone = world.model.head(torch.cat([features[0], torch.zeros_like(features[1])], 1)).squeeze(1)
    expected = torch.exp(-((alone - target) ** 2) / 4).mean().item()
    train(balancer, [(a, v, target.double())])
    assert balancer.metrics()["evidence/audio"] == pytest.approx(expected, rel=1e-9)


def test_multi_label_training() -> None:
    world = World(classes=4)
    balancer = world.balance(
        eq.OGMGE(0.8), eq.MultiLoss(), criterion=nn.BCEWithLogitsLoss(), track_every=1
    )
    a, v, _ = batch()
    losses = []
    for _ in range(40):
        train(balancer, [(a, v, (a > 0).double())])
        losses.append(balancer.metrics()["loss/joint"])
    assert losses[-1] < losses[0]


def test_huge_losses_do_not_underflow() -> None:
    """exp(-loss) is 0 in double precision from 746 on; the ratio of two such scores still is one."""
    world = World(classes=1)
    world.model.__class__ = Regressor
    balancer = world.balance(eq.OGM(0.5), criterion=nn.MSELoss(), track_every=1)
    a, v, _ = batch(8)
    train(balancer, [(a, v, torch.full((8,), 100.0, dtype=torch.float64))])
    metrics = balancer.metrics()
    assert metrics["evidence/audio"] == 0  # as a float
    assert math.isfinite(metrics["ratio/audio"])
    assert metrics["ratio/audio"] * metrics["ratio/visual"] == pytest.approx(1)
    assert {metrics["coefficient/audio"], metrics["coefficient/visual"]} > {1.0}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.full((24,), 7), ["cross_entropy", "(24, 3)", "int64 (24,)", "7"]),
        (torch.zeros(24, dtype=torch.int32), ["int32 (24,)", "Long"]),
        (torch.zeros(24), ["float32 (24,)"]),
        (torch.zeros(23, dtype=torch.long), ["(24, 3)", "(23,)"]),
        ("cats", ["str"]),
    ],
)
def test_a_target_that_does_not_fit_is_named(target: Any, words: list[str]) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, _ = batch()
    with pytest.raises(eq.MatchError) as caught:
        balancer.loss(world.model(*inputs), target)
    for word in words:
        assert word in str(caught.value)


def test_a_criterion_that_cannot_be_read_per_sample_says_so() -> None:
    def pairs(logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape[0] < 2:
            raise ValueError("needs pairs")
        return (logits[0] - logits[1]).sum()

    world = World()
    balancer = world.balance(eq.OGM(0.8), criterion=pairs)
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match="pairs"):
        balancer.loss(world.model(*inputs), target)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "method", [eq.OGMGE(0.8), eq.OGMGE(0.8, smoothing=0.9, noise=eq.ElementNoise())]
)
def test_a_loss_that_is_not_finite_gives_coefficient_one_and_one_warning(
    bad: float, method: eq.OGMGE
) -> None:
    """And nothing that is kept is corrupted by it: the steps after are those without it."""
    world, plain = World(), World()
    made = {"alpha": 0.8, "smoothing": method.smoothing, "noise": method.noise}
    balancer = world.balance(method, track_every=1)
    reference = plain.balance(eq.OGMGE(**made))
    train(balancer, [batch(seed=1)])
    train(reference, [batch(seed=1)])
    a, v, target = batch(seed=2)
    poisoned = a.clone()
    poisoned[3, 0] = bad
    with pytest.warns(eq.BalanceWarning, match="audio.* is NaN or infinite") as caught:
        for _ in range(3):
            loss = balancer.loss(world.model(poisoned.nan_to_num(1) * math.inf, v), target)
            balancer.backward(loss)
            balancer.modulate()
            metrics = balancer.metrics()
            assert metrics["coefficient/audio"] == metrics["coefficient/visual"] == 1
            world.optimizer.zero_grad()  # the loop of the user skips such a step
    assert len(caught) == 1
    train(balancer, [batch(seed=3)])
    train(reference, [batch(seed=3)])
    assert torch.equal(weights(world.model), weights(plain.model))
