"""N micro-batches give the step of the one large batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.worlds import World, batch, train, weights

METHODS = [
    lambda: eq.OGM(0.8),
    lambda: eq.OGMGE(0.8),
    lambda: eq.OGMGE(0.8, noise=eq.ElementNoise(), smoothing=0.5),
    lambda: eq.OGMGE(0.8, space="update"),
    lambda: eq.OGM(0.5, coefficient=eq.TwoSided()),
    eq.GE,
    eq.Joint,
    eq.MultiLoss,
    eq.Ensemble,
]


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_four_micro_batches_equal_the_large_batch(
    make: type[eq.Method], dtype: torch.dtype
) -> None:
    batches = [batch(24, 3, seed=seed, dtype=dtype) for seed in range(6)]
    large, small = World(3, dtype=dtype), World(3, dtype=dtype)
    train(large.balance(make()), batches)
    train(small.balance(make()), batches, micro=4)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(
        weights(small.model), weights(large.model), rtol=tolerance, atol=tolerance / 10
    )


def test_the_evidence_of_one_step_is_relative_to_a_millionth() -> None:
    for size, micro in ((24, 4), (30, 3)):
        large, small = World(), World()
        one = large.balance(eq.OGM(0.8), track_every=1)
        several = small.balance(eq.OGM(0.8), track_every=1)
        train(one, [batch(size)])
        train(several, [batch(size)], micro=micro)
        expected = one.metrics()
        for name, value in several.metrics().items():
            if not name.startswith("loss"):  # the last micro-batch's
                assert value == pytest.approx(expected[name], rel=1e-6)


def test_evidence_that_was_judged_per_micro_batch_would_differ() -> None:
    """The rule matters: coefficients of single micro-batches are not those of the step."""
    whole = batch(24)
    world = World()
    balancer = world.balance(eq.OGM(0.8), track_every=1)
    ratios = []
    for part in zip(*(tensor.chunk(4) for tensor in whole), strict=True):
        fresh = World()
        alone = fresh.balance(eq.OGM(0.8), track_every=1)
        train(alone, [part])
        ratios.append(alone.metrics()["ratio/audio"])
    train(balancer, [whole])
    assert any(abs(ratio - balancer.metrics()["ratio/audio"]) > 1e-3 for ratio in ratios)


def test_the_last_partial_batch_is_a_step_like_any_other() -> None:
    batches = [batch(24), batch(5, seed=3), batch(1, seed=4)]
    world, again = World(), World()
    train(world.balance(eq.OGMGE(0.8)), batches)
    balancer = again.balance(eq.OGMGE(0.8), track_every=1)
    for part in batches:
        train(balancer, [part])
        evidence = balancer.metrics()["evidence/audio"]
        assert 0 < evidence < 1  # a mean over the samples that there were
    assert torch.equal(weights(world.model), weights(again.model))


def test_losses_of_several_micro_batches_may_be_backpropagated_together() -> None:
    whole = batch(24)
    parts = list(zip(*(tensor.chunk(2) for tensor in whole), strict=True))
    together, apart = World(), World()
    balancer = together.balance(eq.OGM(0.8))
    losses = [balancer.loss(together.model(*inputs), target) for *inputs, target in parts]
    balancer.backward(torch.stack(losses).mean())
    balancer.modulate()
    together.optimizer.step()
    train(apart.balance(eq.OGM(0.8)), [whole], micro=2)
    torch.testing.assert_close(weights(together.model), weights(apart.model), rtol=1e-12, atol=0)


def test_a_loss_that_is_never_backpropagated_adds_no_evidence() -> None:
    world, plain = World(), World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch(seed=9)
    balancer.loss(world.model(*inputs), target)  # thrown away, as a loop does that skips a batch
    train(balancer, [batch()])
    train(plain.balance(eq.OGM(0.8)), [batch()])
    assert torch.equal(weights(world.model), weights(plain.model))


class Unsummable(eq.Method):
    """A method for which N micro-batches are not one batch."""

    name = "unsummable"
    capabilities = eq.Capabilities(accumulation="refused")


def gathered(world: World, balancer: eq.Balancer, back: Callable[..., None]) -> None:
    """Two micro-batches, after each of which gradients are cleared, and their sum put back."""
    kept: dict[nn.Parameter, Tensor] = {}
    for part in zip(*(tensor.chunk(2) for tensor in batch(24)), strict=True):
        *inputs, target = part
        balancer.backward(balancer.loss(world.model(*inputs), target) / 2)
        for parameter in world.model.parameters():
            assert parameter.grad is not None
            kept[parameter] = kept.get(parameter, 0) + parameter.grad
        world.optimizer.zero_grad()
    for parameter, gradient in kept.items():
        back(parameter, gradient)


def replaced(parameter: nn.Parameter, gradient: Tensor) -> None:
    parameter.grad = gradient


def test_a_sum_of_gradients_that_the_loop_keeps_itself_lacks_evidence() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    gathered(world, balancer, replaced)
    with pytest.raises(eq.StepError, match="cleared"):
        balancer.modulate()


@pytest.mark.parametrize("change", ["nothing", "norm", "factor", "replaced"])
def test_a_batch_that_was_dropped_before_is_none_of_it(
    change: str, recwarn: pytest.WarningsRecorder
) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch(12)
    for _ in range(2):
        world.optimizer.zero_grad()  # the first time it is dropped
        balancer.backward(balancer.loss(world.model(*inputs), target))
    parameters = [p for p in world.model.parameters() if p.grad is not None]
    if change == "norm":
        nn.utils.clip_grad_norm_(parameters, 1e-3)
    for parameter in parameters:
        assert parameter.grad is not None
        if change == "factor":
            parameter.grad.mul_(0.5)
        if change == "replaced":
            parameter.grad = parameter.grad / 2
    balancer.modulate()
    assert not recwarn.list


def test_a_sum_that_is_written_into_gradients_is_said() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch(12)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    kept = [parameter.grad.clone() for parameter in world.model.parameters()]
    for parameter in world.model.parameters():
        parameter.grad.zero_()
    *inputs, target = batch(12, seed=2)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    for parameter, gradient in zip(world.model.parameters(), kept, strict=True):
        parameter.grad.copy_(parameter.grad + gradient)
    with pytest.warns(eq.BalanceWarning, match="all micro-batches but the last"):
        balancer.modulate()


def test_a_method_may_refuse_accumulation() -> None:
    world = World()
    balancer = world.balance(Unsummable())
    train(balancer, [batch()])
    with pytest.raises(eq.StepError, match="Unsummable cannot accumulate"):
        train(balancer, [batch()], micro=2)
