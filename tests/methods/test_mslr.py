"""MSLR against optimizers with a learning rate per encoder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from equimodal.functional.mslr import relative_accuracy
from equimodal.methods.schedule.mslr import MSLR, DynamicMSLR
from support.worlds import World, batch, train, weights


def constant() -> eq.Method:
    return MSLR({"audio": 0.5, "visual": 1.5})


def on_gradients() -> eq.Method:
    return MSLR({"audio": 0.5}, space="gradient")


def dynamic() -> eq.Method:
    return DynamicMSLR({"visual": 1.5}, epochs=2)


def in_spans() -> eq.Method:
    return MSLR({"visual": 0.5}, frozen={"audio": [(0, 0), (3, 4)], "visual": [(2, 3)]})


@pytest.mark.parametrize("make", [on_gradients, in_spans])
@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[Any], None], make: Any) -> None:
    check(make)


FACTORS = {"audio": 0.5, "visual": 1.4, "text": 0.0}


def groups(world: World, factors: dict[str, float]) -> torch.optim.Optimizer:
    """The user's optimizer with a learning rate for each encoder."""
    rates = [
        {"params": list(e.parameters()), "lr": world.lr * factors.get(n, 1.0)}
        for n, e in world.encoders.items()
    ]
    rates.append({"params": list(world.model.head.parameters()), "lr": world.lr})
    if world.adam:
        return torch.optim.AdamW(rates, lr=world.lr)
    return torch.optim.SGD(rates, lr=world.lr, momentum=0.9, weight_decay=1e-2)


def step(world: World, optimizer: torch.optim.Optimizer, each: Any) -> None:
    *inputs, target = each
    optimizer.zero_grad()
    nn.functional.cross_entropy(world.model(*inputs), target).backward()
    optimizer.step()


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("adam", [False, True])
def test_is_a_learning_rate_per_encoder(modalities: int, adam: bool) -> None:
    """Momentum and weight decay included, and Adam does not cancel it."""
    factors = {n: f for n, f in FACTORS.items() if n != "text" or modalities == 3}
    lr = 0.01 if adam else 0.1
    world, twin = World(modalities, adam=adam, lr=lr), World(modalities, adam=adam, lr=lr)
    balancer, optimizer = world.balance(MSLR(factors)), groups(twin, factors)
    for seed in range(6):
        train(balancer, [batch(12, modalities, seed=seed)])
        step(twin, optimizer, batch(12, modalities, seed=seed))
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-11)


def test_in_the_space_of_gradients_adam_cancels_it() -> None:
    drifts = {}
    for space in ("gradient", "update"):
        world = World(adam=True, lr=0.01)
        start = weights(world.model.encoders["audio"])
        said = pytest.warns(eq.BalanceWarning) if space == "gradient" else contextlib.nullcontext()
        with said:
            balancer = world.balance(MSLR({"audio": 0.1}, space=space))  # type: ignore[arg-type]
        train(balancer, [batch(12)] * 5)
        drifts[space] = float((weights(world.model.encoders["audio"]) - start).norm())
    plain = World(adam=True, lr=0.01)
    start = weights(plain.model.encoders["audio"])
    train(plain.balance(eq.Joint()), [batch(12)] * 5)
    alone = float((weights(plain.model.encoders["audio"]) - start).norm())
    assert drifts["gradient"] / alone > 0.95
    assert 0.05 < drifts["update"] / alone < 0.2


def test_factors_of_one_change_nothing() -> None:
    world, plain = World(), World()
    train(world.balance(MSLR({})), [batch(12, seed=s) for s in range(3)])
    train(plain.balance(eq.Joint()), [batch(12, seed=s) for s in range(3)])
    assert torch.equal(weights(world.model), weights(plain.model))


# ---------------------------------------------------------------------- left out for some steps

SPANS = {"audio": [(1, 2), (5, 5)], "visual": [(2, 3)]}


def left_out(step: int) -> set[str]:
    steps = {"audio": (1, 2, 5), "visual": (2, 3)}
    return {name for name, of in steps.items() if step in of}


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("micro", [1, 3])
def test_in_its_spans_nothing_of_an_encoder_moves(modalities: int, adam: bool, micro: int) -> None:
    """Neither weights nor the optimizer's state; steps count, not micro-batches; resumed within."""
    lr = 0.01 if adam else 0.1
    world, twin = World(modalities, adam=adam, lr=lr), World(modalities, adam=adam, lr=lr)
    balancer = world.balance(MSLR({}, frozen=SPANS))
    for seed in range(7):
        if seed == 2:
            state = balancer.state_dict()
            balancer.detach()
            balancer = world.balance(MSLR({}, frozen=SPANS))
            balancer.load_state_dict(state)
        each = batch(12, modalities, seed=seed)
        train(balancer, [each], micro)
        *inputs, target = each
        twin.optimizer.zero_grad()
        nn.functional.cross_entropy(twin.model(*inputs), target).backward()
        for name in left_out(seed):
            twin.encoders[name].zero_grad(set_to_none=True)
        twin.optimizer.step()
        torch.testing.assert_close(
            weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12, msg=f"step {seed}"
        )
    states = zip(world.optimizer.state.values(), twin.optimizer.state.values(), strict=True)
    for ours, theirs in states:
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_a_step_that_is_left_out_does_not_count() -> None:
    world = World()
    balancer = world.balance(MSLR({}, frozen={"audio": [(0, 0)]}))
    start = weights(world.model.encoders["audio"])
    *inputs, target = batch(12)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    world.optimizer.zero_grad()  # and no step
    train(balancer, [batch(12)])
    assert torch.equal(weights(world.model.encoders["audio"]), start)
    train(balancer, [batch(12)])
    assert not torch.equal(weights(world.model.encoders["audio"]), start)


@pytest.mark.parametrize("adam", [False, True])
def test_without_logits_too(adam: bool) -> None:
    """Losses that are handed over, one per sample and modality."""
    world = World(adam=adam)
    method = MSLR({}, frozen={"audio": [(1, 1)]})
    balancer = world.balance(method, scores=eq.LossFall())
    for seed in range(3):
        *inputs, target = batch(12, seed=seed)
        logits = world.model(*inputs)
        each = nn.functional.cross_entropy(logits, target, reduction="none")
        before = [weights(encoder) for encoder in world.encoders.values()]
        balancer.backward(balancer.loss(losses={"audio": each, "visual": 0.5 * each}))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
        after = [weights(encoder) for encoder in world.encoders.values()]
        stayed = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert stayed == [seed == 1, False]


@pytest.mark.parametrize("spans", [[(3, 2)], [(-1, 2)], [(1,)], [4], [(0.0, 2)], [(0, True)]])
def test_what_is_no_span_is_refused(spans: Any) -> None:
    with pytest.raises(eq.SetupError, match=r"MSLR\(frozen\): expected spans .* for audio$"):
        MSLR({}, frozen={"audio": spans})


def test_a_span_of_an_unknown_modality_is_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"MSLR\(frozen\): .*'audoi'.*audio"):
        World().balance(MSLR({}, frozen={"audoi": [(0, 1)]}))


# ---------------------------------------------------------------------- by accuracy


def slow_accuracies(world: World) -> list[float]:
    """By the split of the linear head, one sample at a time."""
    *inputs, target = batch(20, world.modalities, seed=9)
    found = []
    for m, (encoder, x) in enumerate(zip(world.encoders.values(), inputs, strict=True)):
        with torch.no_grad():
            part = world.model.head.weight[:, 8 * m : 8 * m + 8]
            right = 0
            for row, y in zip(encoder(x), target.tolist(), strict=True):
                logits = [float(row @ w) for w in part + 0]
                logits = [
                    u + float(b) / world.modalities
                    for u, b in zip(logits, world.model.head.bias, strict=True)
                ]
                right += logits.index(max(logits)) == y
        found.append(right / len(target))
    return found


@pytest.mark.parametrize("modalities", [2, 3])
def test_equals_the_hand_written_schedule(modalities: int) -> None:
    world, twin = World(modalities), World(modalities)
    loader = DataLoader(TensorDataset(*batch(20, modalities, seed=9)), 8)
    factors = {"visual": 1.2}
    balancer = world.balance(DynamicMSLR(factors, epochs=3), val_loader=loader)
    optimizer = groups(twin, factors)
    history: list[list[float]] = []
    changed = False
    for epoch in range(7):
        each = batch(6, modalities, seed=epoch)
        train(balancer, [each])
        step(twin, optimizer, each)
        balancer.end_epoch()
        history.append(slow_accuracies(twin))
        if len(history) >= 3:
            for m, name in enumerate(twin.encoders):
                recent = [h[m] for h in history[-3:]]
                ratio = recent[-1] / (sum(recent) / 3) if sum(recent) else 1.0
                optimizer.param_groups[m]["lr"] = twin.lr * factors.get(name, 1.0) * ratio
                changed |= ratio != 1
    assert changed
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-11)


def test_relative_accuracy_of_nothing_yet_and_of_zeros() -> None:
    history = torch.tensor([[math.nan, 0.0, 0.2], [0.5, 0.0, 0.0]])
    assert relative_accuracy(history).tolist() == [1, 1, 0]


def test_accuracy_is_read_as_the_composed_method_predicts() -> None:
    """An ensemble trains classifiers of its own: the model's head would say nothing."""
    world = World()
    loader = DataLoader(TensorDataset(*batch(20, seed=9)), 8)
    method = DynamicMSLR(epochs=2)
    balancer = world.balance(method, eq.Ensemble(), val_loader=loader)
    train(balancer, [batch(12)])
    balancer.end_epoch()
    *inputs, target = batch(20, seed=9)
    with torch.no_grad():
        logits = balancer.unimodal_logits(*inputs)
    expected = [float((logits[n].argmax(1) == target).double().mean()) for n in balancer.names]
    assert method.history[-1].tolist() == pytest.approx(expected)


def test_ignored_samples_do_not_count() -> None:
    world = World()
    *inputs, target = batch(20, seed=9)
    marked = target.clone()
    marked[::3] = -100
    method = DynamicMSLR(epochs=2)
    balancer = world.balance(method, val_loader=DataLoader(TensorDataset(*inputs, marked), 8))
    train(balancer, [batch(12)])
    balancer.end_epoch()
    with torch.no_grad():
        logits = balancer.unimodal_logits(*inputs)
    counts = marked >= 0
    expected = [
        float((logits[n].argmax(1) == target)[counts].double().mean()) for n in balancer.names
    ]
    assert method.history[-1].tolist() == pytest.approx(expected)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MSLR({"audio": -1}), ["MSLR(factors)", "audio", "-1"]),
        (lambda: DynamicMSLR({"audio": math.inf}), ["DynamicMSLR(factors)", "inf"]),
        (lambda: MSLR({}, space="updates"), ["did you mean 'update'"]),
        (lambda: DynamicMSLR(epochs=1), ["epochs", "1"]),
        (lambda: World().balance(MSLR({"visal": 2.0})), ["visal", "did you mean 'visual'"]),
        (lambda: World().balance(DynamicMSLR()), ["held-out data", "val_loader"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
