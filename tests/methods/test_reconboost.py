"""ReconBoost against loops in NumPy and plain torch, and against what its public code gets wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.reconboost import agreement, boosting_loss
from equimodal.methods.schedule.reconboost import (
    Consolidation,
    DetachedConsolidation,
    ReconBoost,
)
from support.slow import softmax
from support.worlds import World, batch, train, weights

SHAPES = {"logits": (3,), "device": torch.device("cpu"), "dtype": torch.float64}


def short() -> eq.Method:
    return ReconBoost(boosting_epochs=1, rectifying_epochs=1)


def made(world: World, method: ReconBoost, **settings: Any) -> eq.Balancer:
    """A balancer whose classifiers are there before the first step."""
    balancer = world.balance(method, **settings)
    balancer.make_modules(eq.Shapes(dict.fromkeys(balancer.names, (8,)), **SHAPES))
    return balancer


# ---------------------------------------------------------------------- equations


@pytest.mark.parametrize("seed", [0, 1])
def test_losses_equal_the_loop_over_samples(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    own, others, previous = 2 * torch.randn(3, 9, 4, dtype=torch.float64, generator=generator)
    target = torch.randint(4, (9,), generator=generator)
    boosted, near = [], []
    for i, y in enumerate(target.tolist()):
        p, q, r = (softmax(u[i].numpy()) for u in (own, others, previous))
        boosted.append(-(4 - 1.5 * q[y]) * math.log(p[y]) / 4)
        near.append(sum((a - b) ** 2 for a, b in zip(p, r, strict=True)) / 4)
    found = boosting_loss(own, others, target, own=4.0, residual=1.5)
    torch.testing.assert_close(found, torch.tensor(boosted).double(), rtol=1e-9, atol=0)
    torch.testing.assert_close(
        agreement(own, previous), torch.tensor(near).double(), rtol=1e-9, atol=0
    )


def test_nothing_flows_into_the_others() -> None:
    own, others, previous = torch.randn(3, 6, 4, dtype=torch.float64).requires_grad_().unbind()
    for leaf in (own, others, previous):
        leaf.retain_grad()
    target = torch.arange(6) % 4
    (boosting_loss(own, others, target) + agreement(own, previous)).sum().backward()
    assert own.grad is not None
    assert others.grad is None
    assert previous.grad is None


def test_consolidation_has_a_gradient_and_the_released_one_has_none() -> None:
    """The released code detaches both sides, so that its term trains nothing."""
    own, previous = torch.randn(2, 6, 4).unbind()
    own.requires_grad_()
    (gradient,) = torch.autograd.grad(Consolidation(2.0)(own, previous).sum(), own)
    assert gradient.abs().max() > 0
    released = DetachedConsolidation(2.0)(own, previous)
    assert not released.requires_grad
    torch.testing.assert_close(released, Consolidation(2.0)(own, previous).detach())


# ---------------------------------------------------------------------- a training by hand


def by_hand(
    world: World,
    heads: nn.ModuleList,
    rate: nn.Parameter,
    epochs: int,
    batches: Any,
    released: bool,
) -> None:
    """Stages of one epoch of boosting and one of rectifying, each with a fresh optimizer."""
    encoders = list(world.encoders.values())
    for epoch in range(epochs):
        stage, boosting = epoch // 2, epoch % 2 == 0
        turn = stage % len(encoders)
        ready = range(min(len(encoders), stage + (0 if boosting else 1)))
        trained = [turn] if boosting else list(ready)
        parameters = [
            p for m in trained for p in (*encoders[m].parameters(), *heads[m].parameters())
        ]
        if not boosting:
            parameters.append(rate)
        optimizer = torch.optim.SGD(parameters, lr=world.lr, momentum=0.9, weight_decay=1e-2)
        for *inputs, target in batches:
            u = [h(e(x)) for h, e, x in zip(heads, encoders, inputs, strict=True)]
            if boosting:
                fixed = [each.detach() for each in u]
                others = rate.detach() * sum(
                    (fixed[j] for j in ready if j != turn), torch.zeros_like(u[0])
                )
                loss: Any = 0
                for i, y in enumerate(target.tolist()):
                    sure = torch.exp(others[i] - others[i].logsumexp(0))[y]
                    logs = u[turn][i] - u[turn][i].logsumexp(0)
                    loss = loss - (5 - sure) * logs[y] / 3 / len(target)
                    if stage and not released:
                        before = fixed[(stage - 1) % len(encoders)][i]
                        gap = torch.exp(logs) - torch.exp(before - before.logsumexp(0))
                        loss = loss + 0.5 * (gap @ gap) / 3 / len(target)
            else:
                loss = nn.functional.cross_entropy(rate * sum(u[j] for j in ready), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("released", [False, True])
def test_equals_the_hand_written_training(modalities: int, released: bool) -> None:
    """Two rounds over all modalities, so that a learner comes back to what it left."""
    batches = [batch(12, modalities, seed=seed) for seed in range(2)]
    world, twin = World(modalities), World(modalities)
    kind = DetachedConsolidation if released else Consolidation
    method = ReconBoost(boosting_epochs=1, rectifying_epochs=1, consolidation=kind())
    balancer = made(world, method)
    heads, rate = copy.deepcopy(method.readouts.layers), copy.deepcopy(method.rate)
    fused_head = weights(world.model.head)
    epochs = 4 * modalities
    for _ in range(epochs):
        train(balancer, batches)
        balancer.end_epoch()
    by_hand(twin, heads, rate, epochs, batches, released)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-11)
    found, expected = weights(method.readouts), weights(heads)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(method.rate, rate, rtol=1e-8, atol=0)
    assert method.rate != 1, "the boosting rate was not learned"
    assert torch.equal(weights(world.model.head), fused_head), "the model's own head has moved"


# ---------------------------------------------------------------------- who trains when


def test_one_modality_at_a_time_then_all_that_had_their_turn() -> None:
    world = World(3)
    method = ReconBoost(boosting_epochs=2, rectifying_epochs=1)
    balancer = made(world, method)
    expected = [
        {"audio"}, {"audio"}, {"audio"},
        {"visual"}, {"visual"}, {"audio", "visual"},
        {"text"}, {"text"}, {"audio", "visual", "text"},
        {"audio"}, {"audio"}, {"audio", "visual", "text"},
    ]  # fmt: skip
    for epoch, who in enumerate(expected):
        before = {name: weights(encoder) for name, encoder in world.encoders.items()}
        train(balancer, [batch(12, 3, seed=epoch)])
        moved = {n for n, e in world.encoders.items() if not torch.equal(weights(e), before[n])}
        assert moved == who, f"epoch {epoch}"
        balancer.end_epoch()


def test_phases_start_with_a_fresh_optimizer_state() -> None:
    """BalanceMM has one optimizer, whose momentum goes on from phase to phase."""
    world = World()
    balancer = made(world, ReconBoost(boosting_epochs=2, rectifying_epochs=1))
    encoders = {p for encoder in world.encoders.values() for p in encoder.parameters()}
    remembered = []
    for epoch in range(3):
        train(balancer, [batch(12, seed=epoch)])
        balancer.end_epoch()
        assert balancer.own.optimizer is not None
        remembered.append(
            (bool(encoders & set(world.optimizer.state)), bool(balancer.own.optimizer.state))
        )
    assert remembered == [(True, True), (False, False), (False, False)]


def test_predicts_by_the_sum_of_those_that_had_their_turn() -> None:
    world = World()
    method = ReconBoost(boosting_epochs=1, rectifying_epochs=1, rate=2.0)
    balancer = made(world, method)
    *inputs, _ = batch(9, seed=7)
    seen = []
    for epoch in range(5):
        with torch.no_grad():
            alone = [
                layer(encoder(x))
                for layer, encoder, x in zip(
                    method.readouts.layers, world.encoders.values(), inputs, strict=True
                )
            ]
            found = balancer.predict(*inputs)
            torch.testing.assert_close(balancer.unimodal_logits(*inputs)["visual"], alone[1])
        one, both = (
            (method.rate * alone[0]).detach(),
            (method.rate * (alone[0] + alone[1])).detach(),
        )
        seen.append("one" if torch.allclose(found, one) else "both")
        torch.testing.assert_close(found, one if seen[-1] == "one" else both)
        train(balancer, [batch(12, seed=epoch)])
        balancer.end_epoch()
    assert seen == ["one", "one", "one", "both", "both"]


def test_the_export_predicts_alike() -> None:
    world = World()
    balancer = made(world, ReconBoost(boosting_epochs=1, rectifying_epochs=0))
    for seed in range(3):
        train(balancer, [batch(12, seed=seed)])
        balancer.end_epoch()
    *inputs, _ = batch(9, seed=7)
    world.model.eval()
    with torch.no_grad():
        expected = balancer.predict(*inputs)
    torch.testing.assert_close(balancer.export(*inputs)(*inputs), expected)


# ---------------------------------------------------------------------- edges


@pytest.mark.parametrize("missing", ["audio", "visual"])
def test_a_missing_modality_trains_and_says_nothing(missing: str) -> None:
    """Whatever stands in for samples that lack a modality, nothing depends on it."""
    found = []
    for noise in (0.0, 7.0):
        world = World()
        balancer = made(world, ReconBoost(boosting_epochs=1, rectifying_epochs=1))
        for epoch in range(4):
            data = dict(zip(("audio", "visual", "target"), batch(12, seed=epoch), strict=True))
            here = torch.arange(12) % 3 > 0
            data[missing] = torch.where(here[:, None], data[missing], data[missing] + noise)
            loss = balancer.loss(
                world.model(data["audio"], data["visual"]), data["target"], present={missing: here}
            )
            balancer.backward(loss)
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
            balancer.end_epoch()
        found.append(weights(world.model))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_nobody_is_drawn_to_a_learner_that_says_nothing() -> None:
    """Of a sample that lacks the modality of the stage before there is nothing to agree with."""
    *inputs, target = batch(12)
    here = torch.arange(12) % 3 > 0
    found = []
    for weight in (0.0, 3.0):
        world = World()
        method = ReconBoost(
            boosting_epochs=1, rectifying_epochs=1, consolidation=Consolidation(weight)
        )
        balancer = made(world, method)
        balancer.end_epoch()
        balancer.end_epoch()
        assert (method.turn, method.boosting) == ("visual", True)
        logits = world.model(*inputs)
        found.append(balancer.loss(logits, target, present={"audio": here}).item())
    with torch.no_grad():
        previous, own = (
            layer(encoder(x))
            for layer, encoder, x in zip(
                method.readouts.layers, world.encoders.values(), inputs, strict=True
            )
        )
    drawn = 3 * agreement(own, previous)[here].sum() / 12
    assert found[1] - found[0] == pytest.approx(drawn.item(), rel=1e-9)


def test_ignored_targets_and_a_batch_without_the_modality() -> None:
    world = World()
    balancer = made(world, ReconBoost(boosting_epochs=1, rectifying_epochs=1))
    *inputs, target = batch(12)
    target[:] = -100
    before = weights(world.model.encoders["audio"])
    for mask in (None, {"audio": torch.zeros(12, dtype=torch.bool)}):
        loss = balancer.loss(world.model(*inputs), target, present=mask)
        assert float(loss.detach()) == 0
        balancer.backward(loss)
        balancer.modulate()
        world.optimizer.zero_grad()
    assert torch.equal(weights(world.model.encoders["audio"]), before)


def test_an_ignored_sample_equals_one_that_is_not_there() -> None:
    found = []
    for cut in (False, True):
        world = World()
        balancer = made(world, ReconBoost())
        *inputs, target = batch(12)
        target[8:] = -100
        size = 8 if cut else 12
        train(balancer, [(*(x[:size] for x in inputs), target[:size])])
        found.append(weights(world.model))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = made(world, ReconBoost(), criterion=nn.functional.mse_loss)
    *inputs, _ = batch(12)
    with pytest.raises(eq.MatchError, match="one class per sample"):
        balancer.loss(world.model(*inputs), torch.rand(12, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ReconBoost(boosting_epochs=0), ["boosting_epochs", "1 or more", "0"]),
        (lambda: ReconBoost(rectifying_epochs=-1), ["rectifying_epochs", "-1"]),
        (lambda: ReconBoost(own=1.0, residual=1.0), ["residual < own", "own=1.0"]),
        (lambda: ReconBoost(residual=-1.0), ["residual=-1.0"]),
        (lambda: ReconBoost(rate=0), ["rate", "0"]),
        (lambda: Consolidation(-1), ["Consolidation(weight)", "-1"]),
        (lambda: DetachedConsolidation(math.nan), ["DetachedConsolidation(weight)", "nan"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_the_state_says_which_phase_it_is() -> None:
    method: Any = short()
    balancer = made(World(), method)
    for seed in range(3):
        train(balancer, [batch(12, seed=seed)])
        balancer.end_epoch()
    other: Any = short()
    made(World(), other).load_state_dict(balancer.state_dict())
    assert (other.stage, other.boosting, other.turn) == (1, False, "visual")
    assert isinstance(other.rate, Tensor)
    assert torch.equal(other.rate, method.rate)
