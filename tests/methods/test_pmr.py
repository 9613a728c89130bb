"""PMR against a loop in plain Python, and its prototypes where public code gets them wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from equimodal.functional import pmr
from equimodal.methods.objective.pmr import PMR
from equimodal.methods.objective.stimulation import PrototypicalEntropy, SwitchedStimulation
from support import slow
from support.worlds import World, batch, train, weights

generator = np.random.default_rng(0)


def switched() -> eq.Method:
    return PMR(stimulation=SwitchedStimulation(), share=0.5)


def with_entropy() -> eq.Method:
    return PMR(alpha=0.5, entropy=PrototypicalEntropy(weight=0.1, until=1))


# ---------------------------------------------------------------- by hand


def slow_prototypes(features: Sequence[Any], target: Sequence[int], classes: int) -> dict[int, Any]:
    return {
        k: sum(f for f, y in zip(features, target, strict=True) if y == k) / list(target).count(k)
        for k in range(classes)
        if k in target
    }


def slow_logits(feature: Tensor, prototypes: dict[int, Any]) -> Tensor:
    """Of one sample, over the classes that have a prototype, in their order."""
    return torch.stack(
        [
            -sum((a - b) ** 2 for a, b in zip(feature, c, strict=True)).sqrt()
            for c in prototypes.values()
        ]
    )


def graded(scores: list[float]) -> list[float]:
    return [min(max(max(scores) / own - 1, 0), 1) for own in scores]


def zero_or_one(scores: list[float]) -> list[float]:
    return [float(own == min(scores)) for own in scores]


def hand_written(
    world: World,
    loader: DataLoader[Any],
    epochs: int,
    alpha: float,
    momentum: float,
    stimulate: Callable[[list[float]], list[float]],
    entropy: float = 0.0,
    share: float = 1.0,
) -> list[list[float]]:
    """Train as a user would write it down, and return all weights."""
    encoders = list(world.encoders.values())
    prototypes: list[dict[int, Any]] = [{} for _ in encoders]
    history = []
    for _ in range(epochs):
        for *inputs, target in loader:
            features = [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]
            loss = F.cross_entropy(world.model.head(torch.cat(features, dim=1)), target)
            if prototypes[0]:
                logits = [
                    torch.stack([slow_logits(z, p) for z in f])
                    for f, p in zip(features, prototypes, strict=True)
                ]
                scores = [slow.score(d.detach().numpy(), target.tolist()) for d in logits]
                ws = stimulate(scores)
                history.append(ws)
                leads = [min(max(ratio - 1, 0), 1) for ratio in slow.ratios(scores)]
                for w, lead, d in zip(ws, leads, logits, strict=True):
                    p = d.softmax(dim=1)
                    loss = loss + alpha * w * F.cross_entropy(d, target)
                    loss = loss + entropy * lead * (p * p.log()).sum(dim=1).mean()
            world.optimizer.zero_grad()
            loss.backward()
            world.optimizer.step()
        with torch.no_grad():
            taken = list(loader)[: max(1, int(share * len(loader)))]
            targets = torch.cat([each[-1] for each in taken]).tolist()
            for m, encoder in enumerate(encoders):
                features = [encoder(row[None])[0] for each in taken for row in each[m]]
                new = slow_prototypes(features, targets, world.classes)
                old = prototypes[m]
                prototypes[m] = {
                    k: (1 - momentum) * c + momentum * old[k] if k in old else c
                    for k, c in new.items()
                }
    return history


def balanced(
    modalities: int, method: eq.Method, loader: DataLoader[Any], epochs: int, seed: int = 0
) -> tuple[World, eq.Balancer]:
    world = World(modalities, seed=seed)
    balancer = world.balance(method, train_loader=loader)
    for _ in range(epochs):
        train(balancer, list(loader))
        balancer.end_epoch()
    return world, balancer


def loader_of(modalities: int, size: int = 20, seed: int = 4) -> DataLoader[Any]:
    """Its last batch is a partial one."""
    return DataLoader(TensorDataset(*batch(size, modalities, seed=seed)), 6)


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 0), (3, 1)])
@pytest.mark.parametrize(
    ("method", "stimulate", "settings"),
    [
        (lambda: PMR(0.7, 0.4), graded, {"alpha": 0.7, "momentum": 0.4}),
        (
            lambda: PMR(2.0, 0.0, stimulation=SwitchedStimulation(), share=0.5),
            zero_or_one,
            {"alpha": 2.0, "momentum": 0.0, "share": 0.5},
        ),
        (
            lambda: PMR(0.7, 0.2, entropy=PrototypicalEntropy(0.3, until=5)),
            graded,
            {"alpha": 0.7, "momentum": 0.2, "entropy": 0.3},
        ),
    ],
    ids=["paper", "released", "entropy"],
)
def test_equals_the_hand_written_loop(
    modalities: int, seed: int, method: Any, stimulate: Any, settings: dict[str, float]
) -> None:
    loader = loader_of(modalities, seed=4 + seed)
    by_hand = World(modalities, seed=seed)
    history = hand_written(by_hand, loader, 3, stimulate=stimulate, **settings)
    world, _ = balanced(modalities, method(), loader, 3, seed)
    assert any(w > 0 for ws in history for w in ws)
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-7, atol=1e-10)


# ---------------------------------------------------------------- equations


def test_class_sums_equal_their_slow_twin() -> None:
    features = torch.tensor(generator.normal(size=(17, 5)))
    target = torch.tensor(generator.integers(4, size=17))
    target[target == 2] = 0  # a class that nobody has
    sums, counts = pmr.class_sums(features, target, 4)
    expected = slow_prototypes(list(features), target.tolist(), 4)
    assert counts[2] == 0
    for k, mean in expected.items():
        torch.testing.assert_close(sums[k] / counts[k], mean)


@pytest.mark.parametrize("size", [3, 40])  # above 25 rows torch would multiply matrices
def test_prototype_logits_keep_their_digits_close_to_a_prototype(size: int) -> None:
    prototypes = 100 + torch.tensor(generator.normal(size=(30, 6)), dtype=torch.float32)
    features = prototypes[torch.arange(size) % 30] + 1e-3
    nearest = pmr.prototype_logits(features, prototypes).amax(dim=1)
    exact = -(features.double() - prototypes.double()[torch.arange(size) % 30]).norm(dim=1)
    torch.testing.assert_close(nearest, exact.float(), rtol=1e-5, atol=0)


def test_the_gradient_on_a_prototype_is_zero_and_not_nan() -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    prototypes = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    losses, _ = pmr.prototype_losses(
        pmr.prototype_logits(features, prototypes), torch.tensor([0, 1])
    )
    losses.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_a_class_without_a_prototype_is_left_out_of_values_and_gradients() -> None:
    features = torch.tensor(generator.normal(size=(6, 4)), requires_grad=True)
    prototypes = torch.tensor(generator.normal(size=(3, 4)))
    prototypes[1] = math.nan  # whatever is in it
    known = torch.tensor([True, False, True])
    target = torch.tensor([0, 1, 2, 2, -100, 1])
    logits = pmr.prototype_logits(features, prototypes, known)
    losses, counted = pmr.prototype_losses(logits, target)
    entropy = pmr.prototype_entropy(logits)
    assert counted.tolist() == [True, False, True, True, False, False]
    for i in (0, 2, 3):
        two = slow_logits(features[i], {0: prototypes[0], 2: prototypes[2]})
        index = torch.tensor(int(target[i] == 2))
        torch.testing.assert_close(losses[i], F.cross_entropy(two, index))
        p = two.softmax(0)
        torch.testing.assert_close(entropy[i], -(p * p.log()).sum())
    (losses.sum() + entropy.sum()).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("scores", [[0.6, 0.4], [0.2, 0.9], [0.5, 0.5], [0.3, 0.6, 0.45]])
def test_weights_equal_their_slow_twins(scores: list[float]) -> None:
    given = torch.tensor(scores, dtype=torch.float64)
    np.testing.assert_allclose(pmr.graded_stimulation(given), graded(scores), rtol=1e-12)
    lead = [min(max(ratio - 1, 0), 1) for ratio in slow.ratios(scores)]
    np.testing.assert_allclose(pmr.dominance(given), lead, rtol=1e-12, atol=1e-12)
    switch = pmr.switched_stimulation(given).tolist()
    assert switch == ([0, 0] if scores == [0.5, 0.5] else zero_or_one(scores))


@pytest.mark.parametrize("weigh", [pmr.graded_stimulation, pmr.switched_stimulation, pmr.dominance])
def test_three_modalities_reduce_to_two_where_one_has_no_score(weigh: Any) -> None:
    two = torch.tensor([0.4, 0.5], dtype=torch.float64)
    three = weigh(torch.cat([two, torch.tensor([math.nan])]))
    torch.testing.assert_close(three[:2], weigh(two))
    assert three[2] == 0
    for none in ([math.nan, math.nan], [0.0, 0.0]):
        assert torch.equal(weigh(torch.tensor(none)), torch.zeros(2))


def test_scores_of_zero_give_weights_that_are_finite() -> None:
    assert pmr.graded_stimulation(torch.tensor([0.5, 0.0])).tolist() == [0, 1]
    assert pmr.dominance(torch.tensor([0.5, 0.0])).tolist() == [1, 0]


# ---------------------------------------------------------------- prototypes over epochs


def prototypes_of(method: PMR) -> list[Tensor]:
    return [method.get_buffer(f"prototypes_{index}") for index in range(2)]


def test_a_class_that_disappears_keeps_its_prototype_and_a_new_one_starts_afresh() -> None:
    *inputs, target = batch(24)
    parts: list[list[tuple[Tensor, ...]]] = []
    for absent in (2, 0):
        kept = target != absent
        parts.append([(*(x[kept] for x in inputs), target[kept])])
    method = PMR(momentum=0.5)
    world = World()
    balancer = world.balance(method, train_loader=[])
    balancer.train_loader = parts[0]
    train(balancer, parts[0])
    balancer.end_epoch()
    assert method.known.tolist() == [True, True, False]
    first = [p.clone() for p in prototypes_of(method)]
    train(balancer, [(*inputs, target)])  # a batch that holds the unknown class
    assert weights(world.model).isfinite().all()
    balancer.train_loader = parts[1]
    balancer.end_epoch()
    assert method.known.all()
    for encoder, x, before, after in zip(
        world.encoders.values(), inputs, first, prototypes_of(method), strict=True
    ):
        with torch.no_grad():
            means = [encoder(x[target == k]).mean(dim=0) for k in range(3)]
        torch.testing.assert_close(after[0], before[0])
        torch.testing.assert_close(after[1], (means[1] + before[1]) / 2)
        torch.testing.assert_close(after[2], means[2])


def test_prototypes_are_made_in_evaluation_mode_and_modes_come_back() -> None:
    world = World(head=torch.nn.Sequential(torch.nn.Linear(16, 3, dtype=torch.float64)))
    world.model.encoders["audio"].append(torch.nn.Dropout(0.5))
    loader = loader_of(2)
    method = PMR()
    balancer = world.balance(method, train_loader=loader)
    train(balancer, list(loader))
    balancer.end_epoch()
    made = prototypes_of(method)[0].clone()
    again = PMR()
    other = world.balance(again, train_loader=loader)
    other.loss(world.model(*batch(6)[:2]), batch(6)[2])
    other.end_epoch()
    assert torch.equal(prototypes_of(again)[0], made)  # dropout would draw anew
    assert all(module.training for module in world.model.modules())


def test_until_there_are_prototypes_training_is_plain() -> None:
    loader = loader_of(2)
    plain, world = World(), World()
    train(plain.balance(eq.Joint()), list(loader))
    train(world.balance(PMR(), train_loader=loader), list(loader))
    assert torch.equal(weights(world.model), weights(plain.model))


def test_the_released_share_of_batches_is_at_least_one() -> None:
    loader = loader_of(2)  # 4 batches
    for share, batches in ((0.1, 1), (0.5, 2), (0.75, 3), (1.0, 4)):
        method = PMR(share=share)
        world, _ = balanced(2, method, loader, 1)
        *inputs, target = (torch.cat(x) for x in zip(*list(loader)[:batches], strict=True))
        with torch.no_grad():
            feature = world.encoders["visual"](inputs[1])
        sums, counts = pmr.class_sums(feature, target, 3)
        torch.testing.assert_close(
            prototypes_of(method)[1][counts > 0], (sums / counts[:, None])[counts > 0]
        )


def test_the_regulariser_ends() -> None:
    loader = loader_of(2)
    results = [
        weights(balanced(2, PMR(entropy=entropy), loader, 3)[0].model)
        for entropy in (
            None,
            PrototypicalEntropy(0.5, until=0),  # no prototypes yet
            PrototypicalEntropy(0.5, until=1),
            PrototypicalEntropy(0.5, until=2),
        )
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])
    assert not torch.equal(results[2], results[3])


# ---------------------------------------------------------------- edges


def trained(**settings: Any) -> tuple[World, eq.Balancer]:
    return balanced(2, PMR(**settings), loader_of(2), 1)


def test_missing_modalities_count_neither_in_scores_nor_in_losses() -> None:
    *inputs, target = batch(12)
    present = torch.arange(12) < 5
    world, balancer = trained()
    method = next(iter(balancer.methods))
    logits = []
    for name, prototypes, x in zip(balancer.names, prototypes_of(method), inputs, strict=True):
        kept = slice(0, 5) if name == "visual" else slice(None)
        logits.append(
            (pmr.prototype_logits(world.encoders[name](x[kept]), prototypes), target[kept])
        )
    scores = [slow.score(d.detach().numpy(), y.tolist()) / len(y) for d, y in logits]
    extra = sum(w * F.cross_entropy(d, y) for w, (d, y) in zip(graded(scores), logits, strict=True))
    plain = F.cross_entropy(world.model(*inputs), target)
    loss = balancer.loss(world.model(*inputs), target, present={"visual": present})
    torch.testing.assert_close(loss, plain + extra)


@pytest.mark.parametrize("nobody", ["audio", "visual"])
def test_a_batch_that_nobody_counts_in_is_trained_on_without_nan(nobody: str) -> None:
    *inputs, target = batch(12)
    world, balancer = trained(entropy=PrototypicalEntropy(0.1, 9))
    absent = {nobody: torch.zeros(12, dtype=torch.bool)}
    loss = balancer.loss(world.model(*inputs), target, present=absent)
    balancer.backward(loss)
    torch.testing.assert_close(loss, F.cross_entropy(world.model(*inputs), target))
    for parameter in world.model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_other_targets_are_refused() -> None:
    world = World(settings={"criterion": torch.nn.MSELoss()})
    balancer = world.balance(PMR(), train_loader=[])
    *inputs, _ = batch(6)
    with pytest.raises(eq.MatchError, match=r"PMR is defined for one class per sample.*float64"):
        balancer.loss(world.model(*inputs), torch.zeros(6, 3, dtype=torch.float64))


def test_training_data_is_asked_for_and_must_hold_samples() -> None:
    with pytest.raises(eq.SetupError, match="train_loader="):
        World().balance(PMR())
    world = World()
    balancer = world.balance(PMR(), train_loader=[])
    balancer.loss(world.model(*batch(6)[:2]), batch(6)[2])
    with pytest.raises(eq.SetupError, match="train_loader is empty"):
        balancer.end_epoch()
    balancer = world.balance(PMR(share=0.1), train_loader=iter([]))
    balancer.loss(world.model(*batch(6)[:2]), batch(6)[2])
    with pytest.raises(eq.SetupError, match=r"share=0.1.*give share=1"):
        balancer.end_epoch()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PMR(-1), ["PMR(alpha)", "-1"]),
        (lambda: PMR(math.nan), ["alpha", "nan"]),
        (lambda: PMR(momentum=1.0), ["PMR(momentum)", "1.0"]),
        (lambda: PMR(share=0.0), ["PMR(share)", "0.0"]),
        (lambda: PMR(window=(3, 1)), ["PMR(window)", "(3, 1)"]),
        (lambda: PrototypicalEntropy(-0.1, 3), ["PrototypicalEntropy(weight)", "-0.1"]),
        (lambda: PrototypicalEntropy(0.1, -1), ["PrototypicalEntropy(until)", "-1"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [with_entropy, switched])
def test_variants_conform(make: Callable[[], eq.Method], check: Callable[[Any], None]) -> None:
    check(make)
