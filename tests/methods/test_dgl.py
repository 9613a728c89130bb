"""DGL against two backward passes by hand, its edges, and what must not reach what."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.methods.gradient.dgl import DGL
from support.worlds import Silencing, World, batch, train, weights


def nonlinear(modalities: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8 * modalities, 6), nn.Tanh(), nn.Linear(6, 3))


def hand_written(world: World, batches: list[tuple[Tensor, ...]], alpha: float) -> None:
    """As the released code does it: two backward passes, the head's gradients dropped between."""
    for *inputs, target in batches:
        features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        world.optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for m in range(len(features)):
            alone = [z if j == m else torch.zeros_like(z) for j, z in enumerate(features)]
            logits = world.model.head(torch.cat(alone, dim=1))
            total = total + nn.functional.cross_entropy(logits, target)
        (alpha * total).backward()
        for parameter in world.model.head.parameters():
            parameter.grad = None
        logits = world.model.head(torch.cat([z.detach() for z in features], dim=1))
        nn.functional.cross_entropy(logits, target).backward()
        world.optimizer.step()


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2), (3, 3), (4, 3)])
@pytest.mark.parametrize("head", [None, nonlinear])
def test_equals_two_backward_passes_by_hand(modalities: int, seed: int, head: Any) -> None:
    made = [None if head is None else head(modalities) for _ in range(2)]
    ours, theirs = (World(modalities, seed=seed, head=each) for each in made)
    batches = [batch(10, modalities, seed=10 * seed + i) for i in range(5)]
    train(ours.balance(DGL(alpha=2.5)), batches)
    hand_written(theirs, batches, alpha=2.5)
    torch.testing.assert_close(weights(ours.model), weights(theirs.model), rtol=1e-9, atol=1e-12)


def test_a_model_without_a_head_is_split_where_its_encoders_end() -> None:
    whole, split = World(), World()
    balancer = eq.Balancer(
        DGL(), whole.model, whole.encoders, None, whole.optimizer, scores=eq.Ablation()
    )
    batches = [batch(10, seed=i) for i in range(3)]
    train(balancer, batches)
    train(split.balance(DGL()), batches)
    torch.testing.assert_close(weights(whole.model), weights(split.model), rtol=1e-9, atol=1e-12)


def gradients(world: World, *methods: eq.Method, **settings: Any) -> dict[str, Tensor]:
    balancer = world.balance(*methods, **settings)
    *inputs, target = batch(10)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    return {n: p.grad for n, p in world.model.named_parameters() if p.grad is not None}


def test_neither_loss_reaches_what_the_other_trains() -> None:
    """The weight of the unimodal losses scales the encoders' gradients, and the encoders' only."""
    small, large = (gradients(World(), DGL(alpha=alpha)) for alpha in (1.0, 3.0))
    for name, gradient in small.items():
        assert gradient.any()
        factor = 1.0 if name.startswith("head") else 3.0
        torch.testing.assert_close(large[name], factor * gradient)


def test_the_heads_gradient_is_that_of_plain_training() -> None:
    ours, plain = (gradients(World(), method) for method in (DGL(), eq.Joint()))
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(ours[name], plain[name])


def test_running_statistics_move_once_and_nothing_is_left_on_the_head() -> None:
    heads = [nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3)) for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    ours, plain = (World(head=head) for head in heads)
    before = dict(ours.model.named_parameters())
    *inputs, target = batch(9)
    balancer = ours.balance(DGL())
    balancer.backward(balancer.loss(ours.model(*inputs), target))
    plain.model(*inputs)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], value), name
    assert all(before[n] is p and p.requires_grad for n, p in ours.model.named_parameters())
    assert ours.model.head.training


def test_samples_without_a_modality_do_not_train_its_encoder() -> None:
    world = World()
    balancer = world.balance(DGL(alpha=1.0))
    *inputs, target = batch(8)
    present = torch.arange(8) < 5
    balancer.backward(balancer.loss(world.model(*inputs), target, present={"visual": present}))
    twin = World()
    feature = twin.encoders["visual"](inputs[1][:5])
    logits = twin.model.head(torch.cat([torch.zeros_like(feature), feature], dim=1))
    (nn.functional.cross_entropy(logits, target[:5], reduction="sum") / 8).backward()
    for ours, theirs in zip(
        world.encoders["visual"].parameters(), twin.encoders["visual"].parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_modality_that_no_sample_has_is_not_trained() -> None:
    world = World()
    balancer = world.balance(DGL())
    *inputs, target = batch(8)
    absent = {"visual": torch.zeros(8, dtype=torch.bool)}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=absent))
    assert not any(p.grad.any() for p in world.encoders["visual"].parameters())
    assert all(p.grad.any() for p in world.encoders["audio"].parameters())


def test_the_joint_loss_does_not_see_what_another_method_takes_away() -> None:
    """A feature that is dropped before the head trains its encoder by the unimodal loss alone."""
    world, plain = World(), World()
    found = gradients(world, DGL(), Silencing())
    expected = gradients(plain, eq.Joint(), Silencing())
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(found[name], expected[name])
    assert not found["head.weight"][:, :8].any()
    assert found["encoders.audio.0.weight"].any()


def test_with_ogm_both_act() -> None:
    world, alone = World(), World()
    with_ogm = gradients(world, DGL(), track_every=1)
    balancer = alone.balance(DGL(), eq.OGM(0.8))
    *inputs, target = batch(10)
    balancer.backward(balancer.loss(alone.model(*inputs), target))
    balancer.modulate()
    factors = [
        float(p.grad.norm() / with_ogm[n].norm())
        for n, p in alone.model.named_parameters()
        if p.ndim == 2
    ]
    assert min(factors) < 0.9
    assert max(factors) == pytest.approx(1)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
def test_an_alpha_that_is_no_weight_is_refused(alpha: float) -> None:
    with pytest.raises(eq.SetupError, match=r"DGL\(alpha\).*above 0"):
        DGL(alpha)


def test_a_model_compiled_after_attaching_trains_alike() -> None:
    torch._dynamo.reset()
    plain, world = World(), World()
    balancer = world.balance(DGL())
    balancer.check(batch())
    compiled: Any = torch.compile(world.model, backend="aot_eager")
    train(balancer, [batch(seed=s) for s in range(3)], model=compiled)
    train(plain.balance(DGL()), [batch(seed=s) for s in range(3)])
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-9, atol=1e-9)
