"""Logistic regression against Newton's method, and its choice of the penalty."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equimodal.diagnostics.encoders.logistic import HELD_OUT, choose_logistic, fit_logistic

CLASSES = 4


def data(samples: int = 120, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features on very different scales, and classes that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    pure = torch.randn(samples, width, generator=generator, dtype=torch.float64)
    scores = pure[:, :CLASSES] * 1.5 if width >= CLASSES else pure @ torch.ones(width, CLASSES)
    noise = torch.randn(samples, CLASSES, generator=generator, dtype=torch.float64)
    features = (pure @ mix) * torch.logspace(-2, 2, width, dtype=torch.float64) + 3
    return features, (scores + noise).argmax(dim=1)


def newton(features: Tensor, target: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """The minimum, by Newton's method with the whole Hessian, on standardised features."""
    x = (features - features.mean(0)) / features.std(0, correction=0)
    shape = (CLASSES, x.shape[1])

    def objective(packed: Tensor) -> Tensor:
        weight, bias = packed[: shape[0] * shape[1]].view(shape), packed[-CLASSES:]
        return F.cross_entropy(x @ weight.T + bias, target) + strength / 2 * (weight**2).sum()

    def slope(packed: Tensor) -> Tensor:
        return torch.autograd.functional.jacobian(objective, packed)

    packed = torch.zeros(shape[0] * shape[1] + CLASSES, dtype=torch.float64)
    for _ in range(30):
        gradient = slope(packed)
        step = (
            torch.linalg.pinv(torch.autograd.functional.hessian(objective, packed), rtol=1e-12)
            @ gradient
        )
        rate = 1.0
        while objective(packed - rate * step) > objective(packed) and rate > 1e-6:
            rate /= 2
        packed = packed - rate * step
    assert slope(packed).abs().max() < 1e-11
    bias = packed[-CLASSES:]
    return packed[: shape[0] * shape[1]].view(shape), bias - bias.mean()


@pytest.mark.parametrize(
    ("samples", "width", "strength"),
    [(120, 6, 1.0), (120, 6, 1e-2), (120, 6, 1e-4), (20, 30, 1.0), (20, 30, 1e-2), (20, 30, 1e-4)],
)
def test_the_minimum_is_that_of_newtons_method(samples: int, width: int, strength: float) -> None:
    features, target = data(samples, width)
    fitted = fit_logistic(features, target, CLASSES, strength)
    weight, bias = newton(features, target, strength)
    torch.testing.assert_close(fitted.weight, weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fitted.bias, bias, rtol=1e-5, atol=1e-5)


def test_units_of_the_features_do_not_matter() -> None:
    features, target = data()
    one = fit_logistic(features, target, CLASSES, 0.01).logits(features)
    other = fit_logistic(features * 1000 - 7, target, CLASSES, 0.01).logits(features * 1000 - 7)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_strength_is_the_best_on_samples_that_were_not_fitted() -> None:
    features, target = data(100, 10, seed=3)
    strengths = (10.0, 1.0, 0.1, 0.01, 0.001)
    chosen = choose_logistic(features, target, CLASSES, strengths, seed=5)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(5))
    aside, rest = order[: int(HELD_OUT * 100)], order[int(HELD_OUT * 100) :]
    losses = []
    for strength in strengths:
        fitted = fit_logistic(features[rest], target[rest], CLASSES, strength)
        losses.append(float(F.cross_entropy(fitted.logits(features[aside]), target[aside])))
    best = strengths[losses.index(min(losses))]
    assert chosen.strength == best
    assert 0.001 < best < 10  # neither end: there is something to choose
    whole = fit_logistic(features, target, CLASSES, best)
    assert torch.equal(chosen.weight, whole.weight)


def test_pure_noise_gets_a_strong_penalty_and_a_clear_signal_a_weak_one() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(CLASSES, (200,), generator=generator)
    noise = torch.randn(200, 20, generator=generator)
    signal = F.one_hot(target, CLASSES) + 0.05 * torch.randn(200, CLASSES, generator=generator)
    assert choose_logistic(noise, target, CLASSES).strength >= 0.1
    assert choose_logistic(signal, target, CLASSES).strength <= 1e-3


def test_a_class_without_training_samples_is_never_predicted() -> None:
    features, target = data()
    kept = target != 2
    fitted = fit_logistic(features[kept], target[kept], CLASSES, 0.01)
    logits = fitted.logits(features)
    assert logits.shape == (120, CLASSES)
    assert (logits[:, 2] == -torch.inf).all()
    relabelled = torch.tensor([0, 1, 2, 2])[target[kept]]
    three = fit_logistic(features[kept], relabelled, 3, 0.01).logits(features)
    torch.testing.assert_close(logits[:, [0, 1, 3]], three)


def test_features_that_do_not_vary_change_nothing() -> None:
    features, target = data()
    constant = torch.tensor([0.0, 1e6], dtype=torch.float64).expand(120, 2)
    rounding = constant + torch.tensor([0.0, 1e-5]) * torch.randn(120, 2, dtype=torch.float64)
    plain = fit_logistic(features, target, CLASSES, 0.01).logits(features)
    for dead in (constant, rounding):
        padded = torch.cat([features, dead], dim=1)
        found = fit_logistic(padded, target, CLASSES, 0.01).logits(padded)
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)


def test_the_same_call_gives_the_same_bits() -> None:
    features, target = data(width=80)
    first, second = (choose_logistic(features, target, CLASSES) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
