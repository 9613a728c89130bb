"""TCMax against the sum over all combinations, written down one by one."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal import testing
from equimodal.functional.tcmax import additive_log_mean_exp, log_mean_exp
from equimodal.methods.objective.tcmax import TCMax
from equimodal.nn import LateAverage
from equimodal.update.noise import mix
from support.worlds import World, batch, train, weights


class Squashed(nn.Module):
    """A head that no sum of terms gives."""

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.inner = nn.Linear(8 * modalities, 5)
        self.outer = nn.Linear(5, 3)

    def forward(self, joined: Tensor) -> Tensor:
        logits: Tensor = self.outer(torch.tanh(self.inner(joined)))
        return logits


def every(samples: int, modalities: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(samples), repeat=modalities))


def oracle(
    head: Callable[[Tensor], Tensor],
    features: list[Tensor],
    target: Tensor,
    combinations: list[tuple[int, ...]] | None = None,
) -> Tensor:
    """The paper's loss, one combination and one class at a time."""
    size, modalities = len(target), len(features)
    positives = []
    for i in range(size):
        logits = head(torch.cat([feature[i] for feature in features])[None])[0]
        positives.append(logits[int(target[i])])
    chosen = every(size, modalities) if combinations is None else combinations
    exponentials = []
    for of in chosen:
        joined = torch.cat([feature[j] for feature, j in zip(features, of, strict=True)])
        exponentials += [value.exp() for value in head(joined[None])[0]]
    partition = torch.stack(exponentials).mean()
    return torch.log(partition) - sum(positives) / size


def features_of(world: World, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]


def linear(modalities: int) -> nn.Module | None:
    return None  # the default head of the world


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("make_head", [linear, Squashed])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_equals_the_sum_over_all_combinations(
    modalities: int, make_head: Callable[[int], Any], seed: int
) -> None:
    torch.manual_seed(seed)
    world, twin = (
        World(modalities, seed=seed, head=copy.deepcopy(make_head(modalities))) for _ in range(2)
    )
    twin.model.load_state_dict(world.model.state_dict())
    balancer = world.balance(TCMax())
    data = [batch(5, modalities, seed=seed + step) for step in range(3)]
    for *inputs, target in data:
        expected = oracle(twin.model.head, features_of(twin, tuple(inputs)), target)
        found = balancer.loss(world.model(*inputs), target)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
        twin.optimizer.zero_grad()
        expected.backward()
        twin.optimizer.step()
        balancer.backward(found)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


def test_the_closed_form_of_numpy() -> None:
    """From the README's second equation, with sums and no logarithm of a sum."""
    world = World(seed=3)
    *inputs, target = batch(7, seed=3)
    features = [f.detach().numpy() for f in features_of(world, tuple(inputs))]
    weight = world.model.head.weight.detach().numpy()
    bias = world.model.head.bias.detach().numpy()
    audio, visual = (
        f @ w.T + bias / 2 for f, w in zip(features, (weight[:, :8], weight[:, 8:]), strict=True)
    )
    below = sum(
        sum(math.exp(audio[j, c]) for j in range(7)) * sum(math.exp(visual[k, c]) for k in range(7))
        for c in range(3)
    )
    terms = [
        math.log(math.exp(audio[i, c]) * math.exp(visual[i, c]) / below)
        for i, c in enumerate(target.tolist())
    ]
    expected = -sum(terms) / 7 - math.log(7**2 * 3)
    found = world.balance(TCMax()).loss(world.model(*inputs), target)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-12)


@pytest.mark.parametrize("modalities", [2, 3])
def test_a_mean_of_classifiers_is_split_too(modalities: int) -> None:
    widths = dict.fromkeys(["audio", "visual", "text"][:modalities], 8)

    class Average(LateAverage):
        def forward(self, joined: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(*joined.split(8, dim=1))

    world = World(modalities, head=Average(widths, 3))
    *inputs, target = batch(4, modalities)
    expected = oracle(world.model.head, features_of(world, tuple(inputs)), target)
    method = TCMax()
    found = world.balance(method).loss(world.model(*inputs), target)
    assert method._additive
    assert method._additive[0][1] == 1 / modalities
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("head", [None, Squashed(2)])
def test_drawn_combinations_are_those_of_the_seed(head: nn.Module | None) -> None:
    world = World(head=head)
    *inputs, target = batch(6)
    balancer = world.balance(TCMax(negatives=9), seed=4)
    for draw in range(2):
        generator = torch.Generator().manual_seed(mix(4, draw))
        chosen = torch.randint(6, (2, 9), generator=generator).T.tolist()
        expected = oracle(
            world.model.head, features_of(world, tuple(inputs)), target, [tuple(c) for c in chosen]
        )
        found = balancer.loss(world.model(*inputs), target)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_many_drawn_combinations_come_close_to_all() -> None:
    world = World()
    *inputs, target = batch(8)
    exact = world.balance(TCMax()).loss(world.model(*inputs), target)
    drawn = World().balance(TCMax(negatives=200_000))
    found = drawn.loss(drawn.attached.model(*inputs), target)
    assert 0 < (found - exact).abs().item() < 0.01


def test_a_third_modality_that_says_nothing_changes_nothing() -> None:
    """M = 3 reduces to M = 2."""
    unimodal = torch.randn(2, 6, 4, dtype=torch.float64)
    mute = torch.cat([unimodal, torch.zeros(1, 6, 4, dtype=torch.float64)])
    torch.testing.assert_close(additive_log_mean_exp(mute), additive_log_mean_exp(unimodal))


def test_large_logits_do_not_overflow() -> None:
    """The released code takes exponentials after it subtracted the mean, which may be far off."""
    unimodal = torch.tensor([[[900.0, 0.0]], [[0.0, -900.0]]])
    assert float(additive_log_mean_exp(unimodal)) == pytest.approx(900 - math.log(2))
    assert float(log_mean_exp(unimodal.sum(0))) == pytest.approx(900 - math.log(2))


@pytest.mark.parametrize("head", [None, Squashed(2)])
@pytest.mark.parametrize("negatives", [None, 500])
def test_samples_without_a_modality_keep_the_users_loss(
    head: nn.Module | None, negatives: int | None
) -> None:
    """Combinations take a modality from those that have it, and only whole samples are positive."""
    world = World(head=head)
    *inputs, target = batch(6)
    present = {"visual": torch.tensor([True, True, False, True, False, True])}
    balancer = world.balance(TCMax(negatives))
    found = balancer.loss(world.model(*inputs), target, present=present)
    whole = present["visual"].nonzero().flatten().tolist()
    if negatives is None:
        chosen = [pair for pair in every(6, 2) if pair[1] in whole]
    else:
        generator = torch.Generator().manual_seed(mix(0, 0))
        drawn = torch.randint(6, (2, negatives), generator=generator).T.tolist()
        chosen = [(j, k) for j, k in drawn if k in whole]
    features = features_of(world, tuple(inputs))
    logits = world.model.head(torch.cat(features, 1))
    everything = oracle(world.model.head, features, target, chosen)
    partition = everything + logits.gather(1, target[:, None]).mean()
    positives = logits.gather(1, target[:, None])[whole].mean()
    lacking = [i for i in range(6) if i not in whole]
    rest = nn.functional.cross_entropy(logits[lacking], target[lacking])
    expected = 4 / 6 * (partition - positives) + 2 / 6 * rest
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_a_modality_that_the_whole_batch_lacks_leaves_the_users_loss() -> None:
    world = World()
    *inputs, target = batch(6)
    balancer = world.balance(TCMax())
    present = {"visual": torch.zeros(6, dtype=torch.bool)}
    found = balancer.loss(world.model(*inputs), target, present=present)
    expected = nn.functional.cross_entropy(world.model(*inputs), target)
    torch.testing.assert_close(found, expected)
    balancer.backward(found)
    balancer.modulate()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in world.model.parameters())


def test_ignored_targets_are_no_positives() -> None:
    world = World()
    *inputs, target = batch(6)
    ignored = target.clone()
    ignored[[1, 4]] = -100
    found = world.balance(TCMax()).loss(world.model(*inputs), ignored)
    logits = world.model(*inputs).gather(1, target[:, None]).squeeze(1)
    partition = oracle(world.model.head, features_of(world, tuple(inputs)), target) + logits.mean()
    torch.testing.assert_close(found, partition - logits[[0, 2, 3, 5]].mean())


def test_one_sample_and_one_class_are_no_trouble() -> None:
    world = World()
    *inputs, target = batch(1)
    found = world.balance(TCMax()).loss(world.model(*inputs), target)
    expected = oracle(world.model.head, features_of(world, tuple(inputs)), target)
    torch.testing.assert_close(found, expected)


def test_weak_encoder_gains_a_signal_where_cross_entropy_has_none() -> None:
    """What the method is for: audio alone decides the class, yet visual is still trained."""
    world = World(seed=1)
    *inputs, target = batch(24, seed=1)
    audio = nn.functional.one_hot(target, 3).double() * 40

    class Certain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Linear(4, 5).double()

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([audio, self.own(x)], 1)

    norms = []
    for method in (eq.Joint(), TCMax()):
        world = World(seed=1)
        world.model.encoders["audio"] = Certain()
        with torch.no_grad():
            world.model.head.weight[:, :3] = torch.eye(3)
        world.optimizer = torch.optim.SGD(world.model.parameters(), lr=0.1)
        balancer = world.balance(method)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        visual = world.model.encoders["visual"].parameters()
        norms.append(sum(float(p.grad.norm()) for p in visual if p.grad is not None))
    assert norms[0] < 1e-8
    assert norms[1] > 1e-3


@pytest.mark.parametrize("negatives", [0, -1, 2.5, True])
def test_bad_settings_are_refused(negatives: Any) -> None:
    with pytest.raises(eq.SetupError, match=r"TCMax\(negatives\): expected a whole number"):
        TCMax(negatives)


def test_other_tasks_are_refused() -> None:
    world = World()
    *inputs, _ = batch(6)
    balancer = world.balance(TCMax(), criterion=nn.functional.mse_loss)
    with pytest.raises(eq.MatchError, match=r"one class per sample.*float64"):
        balancer.loss(world.model(*inputs), torch.zeros(6, 3, dtype=torch.float64))


def test_half_precision_outside_of_autocast() -> None:
    """Features and logits come from autocast, the loss is taken after it."""
    world = World(dtype=torch.float32)
    *inputs, target = batch(12, dtype=torch.float32)
    balancer = world.balance(TCMax())
    with torch.autocast("cpu", torch.bfloat16):
        logits = world.model(*inputs)
    found = balancer.loss(logits, target)
    assert found.dtype == torch.float32
    expected = World(dtype=torch.float32)
    exact = expected.balance(TCMax()).loss(expected.model(*inputs), target)
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.02)


def test_composes_with_ogm_and_leaves_the_prediction_alone() -> None:
    world = World()
    balancer = world.balance(TCMax(), eq.OGM(0.8))
    train(balancer, [batch(12, seed=s) for s in range(3)])
    *inputs, _ = batch(12)
    assert torch.equal(balancer.predict(*inputs), world.model(*inputs))


def test_a_compiled_model_gives_the_same() -> None:
    world, twin = World(), World()
    *inputs, target = batch(12)
    balancer = world.balance(TCMax())
    balancer.check(batch(12))
    compiled = torch.compile(world.model, backend="eager")
    found = balancer.loss(compiled(*inputs), target)
    torch.testing.assert_close(found, twin.balance(TCMax()).loss(twin.model(*inputs), target))


def drawing() -> eq.Method:
    return TCMax(negatives=32)


@pytest.mark.parametrize("make", [drawing])
@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
def test_conformance(make: Callable[[], eq.Method], check: Callable[[Any], None]) -> None:
    check(make)
