"""ARL against loops, and against a scale on the gradient at the output of the encoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal import testing
from equimodal.functional.arl import asymmetric_weights
from equimodal.methods.objective.arl import ARL, AsymmetricWeights, UniformWeights
from support.worlds import World, batch, train, weights


def from_the_start() -> eq.Method:
    return ARL(start=-1)


def uniform() -> eq.Method:
    return ARL(start=0, weights=UniformWeights())


@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [uniform])
def test_conforms(make: Callable[[], eq.Method], check: Callable[[Any], None]) -> None:
    check(make)


# ---------------------------------------------------------------------- the equations


def slow_weights(unimodal: list[list[list[float]]], temperature: float) -> list[float]:
    """One sample and one class at a time, from the logits of every modality."""
    magnitudes, entropies = [], []
    for of in unimodal:
        magnitude = entropy = 0.0
        for u in of:
            powers = [math.exp(x) for x in u]
            for x, power in zip(u, powers, strict=True):
                magnitude += abs(x)
                p = power / sum(powers)
                entropy -= p * math.log(p)
        magnitudes.append(magnitude / len(of))
        entropies.append(entropy / len(of))
    number = len(unimodal)
    shares = [a / sum(magnitudes) for a in magnitudes]
    certain = [1 / max(h / sum(entropies), 0.3 * 2 / number) for h in entropies]
    certain = [b / sum(certain) for b in certain]
    exponents = []
    for m in range(number):
        others = [shares[j] for j in range(number) if j != m]
        exponents.append(math.exp(temperature * sum(others) / len(others) * certain[m]))
    return [e / sum(exponents) for e in exponents]


def measured(unimodal: Tensor) -> tuple[Tensor, Tensor]:
    magnitude = unimodal.abs().sum(2).mean(1)
    entropy = torch.distributions.Categorical(logits=unimodal).entropy().mean(1)
    return magnitude, entropy


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_equal_the_loop(modalities: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    unimodal = torch.randn(modalities, 9, 4, generator=generator, dtype=torch.float64)
    unimodal *= torch.tensor([1.0, 4.0, 2.0])[:modalities, None, None]
    found = asymmetric_weights(*measured(unimodal), temperature=8.0)
    expected = torch.tensor(slow_weights(unimodal.tolist(), 8.0), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Scaled(torch.autograd.Function):
    """The released form: the identity, whose gradient is scaled."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return feature.view_as(feature)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * ctx.factor, None


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_equals_a_scale_on_the_gradient_at_the_encoders_output(
    modalities: int, seed: int
) -> None:
    """Two epochs without weights, two with them."""
    world, twin = World(modalities, seed=seed), World(modalities, seed=seed)
    balancer = world.balance(ARL(gamma=3.0, start=1, weights=AsymmetricWeights(5.0)))
    head = twin.model.head
    for epoch in range(4):
        batches = [batch(12, modalities, seed=100 * seed + 10 * epoch + step) for step in range(2)]
        train(balancer, batches)
        balancer.end_epoch()
        for *inputs, target in batches:

            def alone(features: list[Tensor]) -> list[Tensor]:
                cut = head.weight.split(8, dim=1)
                share = head.bias / modalities
                return [z @ w.T + share for z, w in zip(features, cut, strict=True)]

            features = [e(x) for e, x in zip(twin.encoders.values(), inputs, strict=True)]
            factors = [1.0] * modalities
            if epoch > 1:
                logits = [u.detach().tolist() for u in alone(features)]
                factors = [1 + w for w in slow_weights(logits, 5.0)]
            features = [Scaled.apply(z, k) for z, k in zip(features, factors, strict=True)]
            loss = nn.functional.cross_entropy(head(torch.cat(features, dim=1)), target)
            for u in alone(features):
                gamma = 3.0 if epoch > 1 else 1.0
                loss = loss + gamma * nn.functional.cross_entropy(u, target)
            twin.optimizer.zero_grad()
            loss.backward()
            twin.optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- defects of public code


def coefficients(balancer: eq.Balancer) -> dict[str, float]:
    found = balancer.metrics()
    return {name: found[f"coefficient/{name}"] for name in balancer.names}


def step(method: eq.Method, **settings: Any) -> eq.Balancer:
    world = World()
    balancer = world.balance(method, track_every=1)
    *inputs, target = batch()
    balancer.backward(balancer.loss(world.model(*inputs), target, **settings))
    balancer.modulate()
    return balancer


def test_the_weights_reach_the_gradients() -> None:
    """One release computes them and never assigns them: every encoder is scaled by 1.5 there."""
    found = coefficients(step(from_the_start()))
    assert sum(found.values()) == pytest.approx(3)
    assert abs(found["audio"] - found["visual"]) > 1e-3
    assert coefficients(step(ARL(start=-1, weights=UniformWeights()))) == {
        "audio": 1.5,
        "visual": 1.5,
    }


def test_the_weights_are_those_of_the_step_they_act_on() -> None:
    """A release applies those of the step before."""
    world = World()
    balancer = world.balance(from_the_start(), track_every=1)
    for seed in range(3):
        *inputs, target = batch(seed=seed)
        with torch.no_grad():
            unimodal = torch.stack(list(balancer.unimodal_logits(*inputs).values()))
        train(balancer, [(*inputs, target)])
        expected = 1 + asymmetric_weights(*measured(unimodal), temperature=8.0)
        assert list(coefficients(balancer).values()) == pytest.approx(expected.tolist())


def test_three_modalities_reduce_to_two_without_the_third() -> None:
    magnitude = torch.tensor([3.0, 1.0, 7.0], dtype=torch.float64)
    entropy = torch.tensor([1.0, 0.2, 0.9], dtype=torch.float64)
    two = asymmetric_weights(magnitude[:2], entropy[:2], 8.0)
    present = torch.tensor([True, True, False])
    three = asymmetric_weights(magnitude, entropy, 8.0, present)
    torch.testing.assert_close(three, torch.cat([two, torch.zeros(1, dtype=torch.float64)]))


def test_logits_of_zero_or_of_infinite_certainty_give_finite_weights() -> None:
    nothing = torch.zeros(3)
    torch.testing.assert_close(asymmetric_weights(nothing, nothing, 8.0), torch.full((3,), 1 / 3))
    certain = asymmetric_weights(torch.tensor([2.0, 2.0]), torch.tensor([0.0, 1.0]), 8.0)
    bound = torch.tensor([4 * 1 / 0.3, 4.0]) / (1 / 0.3 + 1)
    torch.testing.assert_close(certain, bound.softmax(0))


# ---------------------------------------------------------------------- edges


def test_a_modality_that_nobody_has_is_left_out() -> None:
    present = {"visual": torch.zeros(24, dtype=torch.bool)}
    found = coefficients(step(from_the_start(), present=present))
    assert found == {"audio": 2.0, "visual": 1.0}


def test_a_frozen_encoder_is_left_out_by_name() -> None:
    """Its weight is still judged: the factors of the others are what they were."""
    whole, part = World(), World()
    part.encoders["audio"].requires_grad_(False)
    with pytest.warns(eq.BalanceWarning, match="audio"):
        part.balance(from_the_start()).detach()
    before = weights(part.encoders["audio"])
    methods = ARL(start=-1), ARL(start=-1, modalities=["visual"])
    for world, method in zip((whole, part), methods, strict=True):
        train(world.balance(method), [batch()])
    assert torch.equal(weights(part.encoders["audio"]), before)
    assert torch.equal(weights(part.encoders["visual"]), weights(whole.encoders["visual"]))


def test_samples_without_a_modality_do_not_count_for_it() -> None:
    world, part = World(), World()
    *inputs, target = batch()
    some = torch.arange(24) < 6
    balancer = world.balance(from_the_start(), track_every=1)
    present = {"audio": some, "visual": some}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
    balancer.modulate()
    of_part = part.balance(from_the_start(), track_every=1)
    of_part.backward(of_part.loss(part.model(*(x[:6] for x in inputs)), target[:6]))
    of_part.modulate()
    assert coefficients(balancer) == pytest.approx(coefficients(of_part))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": -1.0}, r"ARL\(gamma\): expected a number of 0 or more, found -1"),
        ({"start": -2}, r"ARL\(start\): expected an epoch"),
        ({"weights": "uniform"}, r"eq\.UniformWeights\(\), found 'uniform'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        ARL(**settings)


def test_a_negative_temperature_is_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"AsymmetricWeights\(temperature\)"):
        AsymmetricWeights(-1.0)
