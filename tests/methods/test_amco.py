"""AMCo against a loop written by hand from the equations on its card."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.amco import mask_rate, reliance, unmasked
from equimodal.methods.features.amco import AMCo
from support import slow
from support.worlds import World, batch, train, weights

# ---------------------------------------------------------------------- by hand


def own_classifiers(world: World) -> list[nn.Linear]:
    """Linear layers with the initial values of the method's own."""
    readouts = eq.Readouts()
    features = dict.fromkeys(world.encoders, (8,))
    device = torch.device("cpu")
    readouts.build(eq.Shapes(features, (3,), device, torch.float64), slow.splitmix(0, 1))
    return list(copy.deepcopy(readouts.layers))  # type: ignore[arg-type]


class ByHand:
    """One sample, one unit and one class at a time."""

    def __init__(self, world: World, limit: float, ramp: float) -> None:
        self.world, self.limit, self.ramp = world, limit, ramp
        self.classifiers = own_classifiers(world)
        self.optimizer = torch.optim.SGD(
            [p for layer in self.classifiers for p in layer.parameters()],
            lr=0.1,
            momentum=0.9,
            weight_decay=1e-2,
        )
        self.dependent = [False] * world.modalities
        self.steps = 0
        self.masked = 0
        self.history: list[list[bool]] = []

    def mask(self, modality: int, rate: float, units: int = 8) -> list[float]:
        seeded = torch.Generator().manual_seed(slow.splitmix(0, 2, self.steps, modality))
        numbers = torch.rand(units, generator=seeded).tolist()
        zeros = min(math.floor(round(rate * units, 9)), units - 1)
        out = sorted(range(units), key=lambda unit: numbers[unit])[:zeros]
        return [0.0 if unit in out else 1.0 for unit in range(units)]

    def train(self, batches: list[tuple[Tensor, ...]], epoch: int) -> None:
        rate = math.sin(math.pi / 2 * min(1, epoch / self.ramp))
        for *inputs, target in batches:
            world = self.world
            self.history.append(list(self.dependent))
            features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
            alone = [layer(z) for layer, z in zip(self.classifiers, features, strict=True)]
            masks = [
                self.mask(m, rate) if dependent else [1.0] * 8
                for m, dependent in enumerate(self.dependent)
            ]
            self.masked += sum(mask.count(0.0) for mask in masks)
            left = [
                z * torch.tensor(mask, dtype=torch.float64)
                for z, mask in zip(features, masks, strict=True)
            ]
            loss = F.cross_entropy(world.model.head(torch.cat(left, dim=1)), target)
            for logits in alone:
                loss = loss + F.cross_entropy(logits, target)
            shares = np.zeros(len(alone))
            for i in range(len(target)):
                joined = slow.softmax(np.concatenate([u[i].detach().numpy() for u in alone]))
                for m in range(len(alone)):
                    shares[m] += sum(joined[3 * m : 3 * m + 3]) / len(target)
            world.optimizer.zero_grad()
            self.optimizer.zero_grad()
            loss.backward()
            world.optimizer.step()
            self.optimizer.step()
            self.dependent = [bool(share > self.limit) for share in shares]
            self.steps += 1


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("modalities", "limit"), [(2, None), (3, None), (3, 0.34)])
def test_equals_the_hand_written_loop(modalities: int, limit: float | None, seed: int) -> None:
    by_hand, world = World(modalities, seed=seed), World(modalities, seed=seed)
    hand = ByHand(by_hand, 1 / modalities if limit is None else limit, ramp=3)
    balancer = world.balance(AMCo(limit, ramp=3.0))
    for epoch in range(5):
        batches = [batch(9 + i, modalities, seed=7 * epoch + i) for i in range(5)]
        hand.train(batches, epoch)
        train(balancer, batches)
        balancer.end_epoch()
        torch.testing.assert_close(
            weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12
        )
        assert (hand.masked > 0) == (epoch > 0)
    assert any(any(dependent) for dependent in hand.history)


# ---------------------------------------------------------------------- the equations


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_shares_equal_the_joint_softmax(modalities: int) -> None:
    logits = 3 * torch.randn(modalities, 5, 4, dtype=torch.float64)
    joined = logits.transpose(0, 1).reshape(5, -1).softmax(1).view(5, modalities, 4)
    torch.testing.assert_close(reliance(logits), joined.sum(2).T, rtol=1e-12, atol=1e-15)


def test_huge_logits_have_shares() -> None:
    logits = torch.tensor([[[1e30, 0.0]], [[0.0, 0.0]]])
    assert reliance(logits).flatten().tolist() == [1.0, 0.0]


def test_the_rate_grows_with_the_epochs_and_is_never_reset() -> None:
    """In BalanceMM it begins anew in every epoch, and then is 1 within a few batches."""
    rates = [mask_rate(epoch, 3.0) for epoch in range(100)]
    assert rates == sorted(rates)
    assert rates[:4] == pytest.approx([0, 0.5, math.sqrt(3) / 2, 1])
    method = AMCo(ramp=10)
    world = World()
    balancer = world.balance(method)
    for _ in range(3):
        train(balancer, [batch(seed=seed) for seed in range(4)])
        balancer.end_epoch()
    seen: list[Tensor] = []
    world.model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for seed in range(4):
        balancer.loss(world.model(*batch(seed=seed)[:-1]), batch(seed=seed)[-1])
    zeros = [int((features == 0).all(dim=0).sum()) for features in seen[1::2]]
    assert zeros == [int(8 * math.sin(math.pi / 2 * 3 / 10))] * 4 == [3] * 4  # one is dependent


@pytest.mark.parametrize("units", [1, 2, 3, 8, 31])
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 1.0])
def test_a_share_is_masked_and_one_unit_stays(units: int, rate: float) -> None:
    """In BalanceMM all is masked once the rate is 1."""
    keep = unmasked(torch.rand(units), rate)
    assert int((~keep).sum()) == min(int(rate * units), units - 1)


def test_half_of_the_units_is_half_of_them() -> None:
    """The sine of 30 degrees is less than a half by one bit."""
    assert mask_rate(1, 3.0) < 0.5
    assert unmasked(torch.rand(8), mask_rate(1, 3.0)).tolist().count(False) == 4


# ---------------------------------------------------------------------- masks in a step


def masked_once(size: int, dependent: list[bool], epoch: int = 5) -> Tensor:
    """Return what the head is given when it runs on masked features."""
    world = World()
    method = AMCo(ramp=3.0)
    balancer = world.balance(method)
    train(balancer, [batch()])
    balancer.epoch = epoch
    method.dependent = torch.tensor(dependent)
    seen: list[Tensor] = []
    world.model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    *inputs, target = batch(size)
    balancer.loss(world.model(*inputs), target)
    assert len(seen) == 2
    plain, masked = seen
    assert torch.equal(masked[masked != 0], plain[masked != 0])
    return (masked == 0).view(size, 2, 8)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_one_mask_for_all_samples_of_any_batch(size: int) -> None:
    """In BalanceMM the mask has exactly two rows, and crashes with another number."""
    masked = masked_once(size, [True, True])
    assert torch.equal(masked, masked[:1].expand_as(masked))
    assert masked[0].sum(dim=1).tolist() == [7, 7]
    assert not torch.equal(masked[0, 0], masked[0, 1])


def test_only_dependent_modalities_are_masked() -> None:
    masked = masked_once(4, [False, True], epoch=1)
    assert masked.sum(dim=2).tolist() == [[0, 4]] * 4


def test_the_masks_change_with_the_steps() -> None:
    world = World()
    balancer = world.balance(AMCo(limit=1e-6, ramp=3.0))
    train(balancer, [batch()])
    balancer.epoch = 1
    seen: list[Tensor] = []
    world.model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0] == 0))
    train(balancer, [batch(seed=seed) for seed in range(3)])
    assert len({tuple(zeros[0].tolist()) for zeros in seen[1::2]}) == 3


def test_a_skipped_step_judges_nobody() -> None:
    world = World()
    method = AMCo(ramp=3.0)
    balancer = world.balance(method)
    train(balancer, [batch()])
    before = str(method.state_dict())
    *inputs, target = batch(seed=4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    balancer.backward(scaler.scale(balancer.loss(world.model(*inputs), target)))
    next(world.model.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]
    balancer.modulate(scaler)
    scaler.step(world.optimizer)
    scaler.update()
    assert str(method.state_dict()) == before


def test_only_complete_samples_are_judged_by() -> None:
    *inputs, target = batch(12)
    present = torch.arange(12) < 7
    shares = []
    for given in ({"audio": present}, None):
        world = World()
        method = AMCo(ramp=3.0)
        balancer = world.balance(method)
        part = slice(None) if given else slice(7)
        logits = world.model(*(x[part] for x in inputs))
        balancer.backward(balancer.loss(logits, target[part], present=given))
        measured = balancer.evidence.measured["amco"]
        shares.append(measured["share"] / measured["samples"])
        assert measured["samples"] == 7
    torch.testing.assert_close(shares[0], shares[1], rtol=1e-12, atol=0)


def test_without_a_complete_sample_the_judgement_stays() -> None:
    world = World()
    method = AMCo(ramp=3.0)
    balancer = world.balance(method)
    train(balancer, [batch()])
    method.dependent = torch.tensor([True, True])
    *inputs, target = batch(5)
    nobody = torch.zeros(5, dtype=torch.bool)
    balancer.backward(balancer.loss(world.model(*inputs), target, present={"audio": nobody}))
    balancer.modulate()
    world.optimizer.step()
    assert method.dependent.tolist() == [True, True]


def test_maps_lose_channels_and_sequences_values() -> None:
    method = AMCo(ramp=3.0)
    method.bind(("audio", "visual"), 0)
    method.dependent = torch.tensor([True, True])
    maps = method._masked(torch.ones(3, 6, 2, 5), 0, 0.5)
    assert sorted(maps[0, :, 0, 0].tolist()) == [0, 0, 0, 1, 1, 1]
    assert torch.equal(maps, maps[:1, :, :1, :1].expand_as(maps))
    sequences = method._masked(torch.ones(3, 7, 4), 1, 0.5)
    assert sorted(sequences[0, 0].tolist()) == [0, 0, 1, 1]
    assert torch.equal(sequences, sequences[:1, :1].expand_as(sequences))
    assert torch.equal(method._masked(torch.ones(3), 1, 1.0), torch.ones(3))


def test_a_frozen_encoder_may_stay_frozen() -> None:
    """No gradient is scaled, so that none is needed."""
    world = World()
    world.model.encoders["audio"].requires_grad_(False)
    world.optimizer = torch.optim.SGD(
        [p for p in world.model.parameters() if p.requires_grad], lr=0.1
    )
    balancer = world.balance(AMCo())
    found = balancer.check(batch())
    assert [modality.modulated for modality in found.modalities] == [0, 0]
    train(balancer, [batch()])


# ---------------------------------------------------------------------- refused


def test_numbers_without_classes_are_refused() -> None:
    world = World(classes=1)
    balancer = world.balance(AMCo(), criterion=nn.MSELoss())
    *inputs, _ = batch()
    with pytest.raises(eq.SetupError, match=r"scores of classes: .* found \('B', 1\)"):
        balancer.loss(world.model(*inputs), torch.randn(24, 1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0.0}, r"AMCo\(limit\): expected above 0 and below 1, or None, found 0.0"),
        ({"limit": 1.0}, "found 1.0"),
        ({"ramp": 0}, r"AMCo\(ramp\): expected a number of epochs above 0, found 0"),
        ({"ramp": math.inf}, "found inf"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.SetupError, match=message):
        AMCo(**settings)
