"""Loss scaling, autocast and clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.worlds import Net, World, batch, train, weights

METHODS = [
    lambda: eq.OGM(0.8),
    lambda: eq.OGMGE(0.8),
    lambda: eq.OGMGE(0.8, noise=eq.ElementNoise()),
    lambda: eq.OGMGE(0.8, space="update"),
    eq.MultiLoss,
    eq.Ensemble,
]


def scaled_train(
    world: World,
    balancer: eq.Balancer,
    batches: list[tuple[Tensor, ...]],
    unscale: bool,
    micro: int = 1,
    growth: int = 2,
) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=growth)
    for whole in batches:
        for *inputs, target in zip(*(t.chunk(micro) for t in whole), strict=True):
            loss = balancer.loss(world.model(*inputs), target) / micro
            balancer.backward(scaler.scale(loss))
        if unscale:
            scaler.unscale_(world.optimizer)
        balancer.modulate(scaler)
        scaler.step(world.optimizer)
        scaler.update()
        world.optimizer.zero_grad()
    return scaler


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("unscale", [True, False], ids=["unscaled by the loop", "by modulate"])
@pytest.mark.parametrize("micro", [1, 2])
def test_loss_scaling_changes_nothing(make: Any, unscale: bool, micro: int) -> None:
    """Scales are powers of two: not a bit may differ."""
    batches = [batch(seed=seed) for seed in range(6)]
    scaled, plain = World(), World()
    scaler = scaled_train(scaled, scaled.balance(make()), batches, unscale, micro)
    train(plain.balance(make()), batches, micro)
    assert scaler.get_scale() != 2.0**10  # it has grown in between
    assert torch.equal(weights(scaled.model), weights(plain.model))


def step_untold(world: World, balancer: eq.Balancer, scaler: torch.amp.GradScaler) -> None:
    """One step in which the loop unscales by itself, and `modulate` is not told of the scaler."""
    *inputs, target = batch(seed=1)
    balancer.backward(scaler.scale(balancer.loss(world.model(*inputs), target)))
    if scaler.is_enabled():
        scaler.unscale_(world.optimizer)
    balancer.modulate()
    scaler.step(world.optimizer)


@pytest.mark.parametrize("make", [eq.MultiLoss, eq.MMPareto])
def test_a_scaler_that_modulate_was_not_given_is_noticed(make: Any) -> None:
    """Heads of a method, and gradients of single terms, would be off by the scale."""
    world = World()
    balancer, before = world.balance(make()), weights(world.model).clone()
    with pytest.raises(eq.StepError, match=r"write balancer\.modulate\(scaler\)"):
        step_untold(world, balancer, torch.amp.GradScaler("cpu"))
    assert torch.equal(weights(world.model), before)


def test_one_that_scales_nothing_or_nothing_hidden_need_not_be_given() -> None:
    scaled, plain, other = World(), World(), World()
    step_untold(scaled, scaled.balance(eq.OGM(0.8)), torch.amp.GradScaler("cpu"))
    train(plain.balance(eq.OGM(0.8)), [batch(seed=1)])
    assert torch.equal(weights(scaled.model), weights(plain.model))
    step_untold(other, other.balance(eq.MultiLoss()), torch.amp.GradScaler("cpu", enabled=False))


@pytest.mark.parametrize("make", METHODS)
def test_a_skipped_step_leaves_no_trace(make: Any) -> None:
    """Its evidence is dropped, not added to the next step; the noise goes on as if it had not been."""
    good = [batch(seed=seed) for seed in range(4)]
    *inputs, target = batch(seed=7)
    overflowing = (*(x * torch.inf for x in inputs[:1]), *inputs[1:], target)
    skipping, plain = World(), World()
    balancer = skipping.balance(make())
    with pytest.warns(eq.BalanceWarning) if "scores" in make().needs else _nothing():
        scaled_train(skipping, balancer, [*good[:2], overflowing, *good[2:]], unscale=True)
    train(plain.balance(make()), good)
    assert balancer.steps == 4
    assert torch.equal(weights(skipping.model), weights(plain.model))


def test_a_skipped_step_is_not_learned_by_a_running_mean_of_the_evidence() -> None:
    world = World(dtype=torch.float32)
    method = eq.OGM(0.8, smoothing=0.9)
    balancer = world.balance(method)
    train(balancer, [batch(dtype=torch.float32)])
    before = method.smoothed.clone()
    *inputs, target = batch(seed=5, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # the scaled loss overflows
    balancer.backward(scaler.scale(balancer.loss(world.model(*inputs), target)) * 4)
    balancer.modulate(scaler)
    scaler.step(world.optimizer)
    scaler.update()
    assert balancer.steps == 1
    assert torch.equal(method.smoothed, before)


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scores", ["auto", eq.Ablation(), eq.Probe()])
def test_autocast(dtype: torch.dtype, scores: Any) -> None:
    """Evidence is read under the autocast of the forward, also when loss is called outside of it."""
    world = World(dtype=torch.float32, lr=0.05)
    balancer = world.balance(eq.OGMGE(0.8), scores=scores, track_every=1)
    losses = []
    for seed in range(30):
        *inputs, target = batch(seed=seed, dtype=torch.float32)
        with torch.autocast("cpu", dtype=dtype):
            logits = world.model(*inputs)
        assert logits.dtype == dtype
        loss = balancer.loss(logits, target)
        balancer.backward(loss)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])
    exact = World(dtype=torch.float32, lr=0.05)
    exact.model.load_state_dict(world.model.state_dict())
    metrics = balancer.metrics()
    assert 0 < metrics["evidence/audio"] < 1
    assert 0 < metrics["evidence/visual"] < 1


def test_evidence_under_autocast_is_that_of_single_precision() -> None:
    found = []
    for enabled in (False, True):
        world = World(dtype=torch.float32)
        balancer = world.balance(eq.OGM(0.8), track_every=1)
        *inputs, target = batch(64, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = balancer.loss(world.model(*inputs), target)
        balancer.backward(loss)
        balancer.modulate()
        found.append(balancer.metrics()["ratio/audio"])
    assert found[1] == pytest.approx(found[0], rel=2e-2)


def test_a_model_all_in_bfloat16() -> None:
    world = World(dtype=torch.bfloat16, lr=0.05)
    balancer = world.balance(eq.OGMGE(0.8, noise=eq.ElementNoise()), eq.MultiLoss())
    for seed in range(4):
        train(balancer, [batch(seed=seed, dtype=torch.bfloat16)])
    assert weights(world.model).isfinite().all()


def clipped(model: Net) -> Tensor:
    return nn.utils.clip_grad_norm_(model.parameters(), 0.05)


def test_clipping_after_modulate_clips_what_is_applied() -> None:
    world = World()
    balancer = world.balance(eq.OGMGE(0.8))
    *inputs, target = batch()
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    assert clipped(world.model) > 0.05
    total = torch.cat([p.grad.flatten() for p in world.model.parameters() if p.grad is not None])
    assert total.norm() == pytest.approx(0.05, rel=1e-4)


def test_clipping_before_modulate_is_modulated_as_it_is() -> None:
    """Not the documented order, but defined: coefficients and noise act on the clipped gradient."""
    world, by_hand = World(), World()
    balancer = world.balance(eq.OGM(0.8), track_every=1)
    *inputs, target = batch()
    balancer.backward(balancer.loss(world.model(*inputs), target))
    clipped(world.model)
    balancer.modulate()
    metrics = balancer.metrics()
    nn.functional.cross_entropy(by_hand.model(*inputs), target).backward()
    clipped(by_hand.model)
    for name, encoder in by_hand.encoders.items():
        for ours, twin in zip(world.encoders[name].parameters(), encoder.parameters(), strict=True):
            k = metrics[f"coefficient/{name}"] if twin.ndim >= 2 else 1.0
            assert twin.grad is not None
            torch.testing.assert_close(ours.grad, k * twin.grad)
