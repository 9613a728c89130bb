"""IPRM against a training by hand, and mixtures where the released code has no number."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.iprm import divergence, geodesic_mixture, probed_weight
from equimodal.methods.objective.iprm import IPRM
from support.slow import softmax
from support.worlds import World, batch, train, weights


def made(world: World, method: IPRM, **settings: Any) -> eq.Balancer:
    """A balancer whose classifiers are there before the first step."""
    balancer = world.balance(method, **settings)
    widths = dict.fromkeys(balancer.names, (8,))
    balancer.make_modules(eq.Shapes(widths, (3,), torch.device("cpu"), torch.float64))
    return balancer


# ---------------------------------------------------------------------- equations


def on_the_arc(a: list[float], b: list[float], first: float, second: float) -> list[float]:
    """A mixture of two vectors, one number at a time."""
    length_a, length_b = math.hypot(*a), math.hypot(*b)
    angle = math.acos(sum(x * y for x, y in zip(a, b, strict=True)) / length_a / length_b)
    p, q = math.sin(first * angle) / math.sin(angle), math.sin(second * angle) / math.sin(angle)
    return [p * x / length_a + q * y / length_b for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_mixtures_equal_the_loop_and_lie_on_the_sphere(seed: int, weight: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 7, 5, dtype=torch.float64, generator=generator)
    found = geodesic_mixture(a, b, torch.tensor(weight, dtype=torch.float64))
    expected = [
        on_the_arc(x, y, weight, 1 - weight) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(found.norm(dim=1), torch.ones(7).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, 0.0])
def test_parallel_opposite_and_empty_features_have_finite_mixtures_and_gradients(
    dtype: torch.dtype, factor: float
) -> None:
    """The released formula has none for parallel ones and for zeros."""
    a = torch.tensor([[0.3, -1.2, 0.5], [1.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    b = (factor * a.detach()).requires_grad_()
    mixed = geodesic_mixture(a, b, torch.tensor(0.3, dtype=dtype))
    (mixed * torch.arange(6).view(2, 3)).sum().backward()
    for leaf in (a, b):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.norm() < (100 if factor >= 0 else 1e4)  # the true one has no bound there
    if factor > 0:
        torch.testing.assert_close(mixed, F.normalize(a, dim=1), rtol=1e-5, atol=1e-5)


def test_the_formula_of_the_released_code_fails_where_features_are_parallel() -> None:
    """If it does not any more, what is above guards against nothing."""
    a = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    angle = (a * a.detach()).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
    mixed = (0.5 * angle).sin() / (angle.sin() + 1e-8) * (a + a.detach())
    mixed.sum().backward()
    assert a.grad is not None
    assert mixed.abs().max() == 0
    assert a.grad.isnan().any()


@pytest.mark.parametrize("seed", [0, 1])
def test_divergences_and_weights_equal_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 9, 4, dtype=torch.float64, generator=generator)
    sums = []
    for own in (0, 1):
        expected = []
        for u, v in zip(logits[own].numpy(), logits[2].numpy(), strict=True):
            p, q = softmax(u), softmax(v)
            expected.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
        found = divergence(logits[own], logits[2])
        torch.testing.assert_close(
            found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
        )
        sums.append(sum(expected))
    weight = probed_weight(torch.tensor([sums], dtype=torch.float64))
    assert weight.item() == pytest.approx(sums[1] / sum(sums), rel=1e-12)


def test_a_mixture_that_says_what_both_say_leaves_them_equal() -> None:
    logits = torch.randn(5, 4)
    same = divergence(logits, logits)
    assert (same == 0).all()
    assert probed_weight(torch.stack([same.sum(), same.sum()])) == 0.5


# ---------------------------------------------------------------------- a training by hand


class ByHand:
    """The same training, with lists of all weights there ever were, as the released code has."""

    def __init__(self, world: World, method: IPRM) -> None:
        self.encoders, self.optimizer = list(world.encoders.values()), world.optimizer
        self.alone: Any = copy.deepcopy(method.readouts.layers)
        self.mixed: Any = copy.deepcopy(method.mixtures.layers)
        self.alpha = method.alpha
        self.pairs = list(itertools.combinations(range(len(self.encoders)), 2))
        self.used: list[list[float]] = [[] for _ in self.pairs]
        self.found: list[list[float]] = [[] for _ in self.pairs]
        own = [*self.alone.parameters(), *self.mixed.parameters()]
        self.own = torch.optim.SGD(own, lr=0.1, momentum=0.9, weight_decay=1e-2)

    def mixture(self, a: Tensor, b: Tensor, first: float) -> Tensor:
        a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
        angle = torch.acos((a * b).sum(dim=1))[:, None]
        first_part = torch.sin(first * angle) / torch.sin(angle) * a
        return first_part + torch.sin((1 - first) * angle) / torch.sin(angle) * b

    def step(self, batch: tuple[Tensor, ...]) -> None:
        *inputs, target = batch
        z = [encoder(x) for encoder, x in zip(self.encoders, inputs, strict=True)]
        u = [layer(feature) for layer, feature in zip(self.alone, z, strict=True)]
        loss: Any = sum(F.cross_entropy(each, target) for each in u)
        for at, (a, b) in enumerate(self.pairs):
            used, found, classifier = self.used[at], self.found[at], self.mixed[at]
            first = self.alpha * used[-1] + (1 - self.alpha) * found[-1] if used else 0.5
            q = classifier(self.mixture(z[a], z[b], first)).detach().softmax(1)
            far = []
            for m in (a, b):
                p = u[m].detach().softmax(1)
                far.append(sum(float((x * (x / y).log()).sum()) for x, y in zip(p, q, strict=True)))
            used.append(first)
            found.append(far[1] / (far[0] + far[1]))
            mixed = classifier(self.mixture(z[a], z[b], found[-1]))
            loss = loss + F.cross_entropy(mixed, target)
        self.optimizer.zero_grad()
        self.own.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.own.step()

    def predict(self, inputs: list[Tensor]) -> Tensor:
        z = [encoder(x) for encoder, x in zip(self.encoders, inputs, strict=True)]
        total: Any = sum(layer(feature) for layer, feature in zip(self.alone, z, strict=True))
        for at, (a, b) in enumerate(self.pairs):
            mixed = self.mixed[at](self.mixture(z[a], z[b], self.used[at][-1]))
            total = total + mixed / len(self.pairs)
        return torch.as_tensor(total)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("alpha", [0.8, 0.3])
def test_equals_the_hand_written_training(modalities: int, alpha: float) -> None:
    world, twin = World(modalities), World(modalities)
    method = IPRM(alpha)
    balancer = made(world, method)
    by_hand = ByHand(twin, method)
    before = weights(world.model.head)
    for seed in range(5):
        data = batch(8, modalities, seed=seed)
        train(balancer, [data])
        by_hand.step(data)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-10)
    for found, expected in (
        (method.readouts.layers, by_hand.alone),
        (method.mixtures.layers, by_hand.mixed),
    ):
        torch.testing.assert_close(weights(found), weights(expected), rtol=1e-8, atol=1e-10)
    for at in range(len(by_hand.pairs)):
        assert method.weights[at].item() == pytest.approx(by_hand.used[at][-1], rel=1e-9)
        assert method.probed[at].item() == pytest.approx(by_hand.found[at][-1], rel=1e-9)
        assert abs(method.weights[at].item() - 0.5) > 0.01, "nothing was rebalanced"
    *inputs, _ = batch(10, modalities, seed=9)
    with torch.no_grad():
        predicted, expected = balancer.predict(*inputs), by_hand.predict(inputs)
    torch.testing.assert_close(predicted, expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(weights(world.model.head), before)


def test_the_next_probe_starts_from_the_weights_of_all_micro_batches() -> None:
    found = []
    for micro in (1, 3):
        world = World()
        method = IPRM()
        train(made(world, method), [batch(24)], micro)
        found.append(method.probed)
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


# ---------------------------------------------------------------------- edges


def terms_of(world: World, data: tuple[Tensor, ...], **present: Any) -> Any:
    """What the method adds to the loss in a first step."""
    method = IPRM()
    balancer = made(world, method)
    *inputs, target = data
    step = balancer.attached.step(world.model(*inputs), target, present, None, 0)
    return method.objective(step)


@pytest.mark.parametrize("missing", ["audio", "text"])
def test_nothing_depends_on_what_stands_in_for_a_missing_modality(missing: str) -> None:
    found = []
    here = torch.arange(12) % 3 > 0
    for noise in (0.0, 7.0):
        data = dict(zip(("audio", "visual", "text", "target"), batch(12, 3), strict=True))
        data[missing] = torch.where(here[:, None], data[missing], data[missing] + noise)
        terms = terms_of(World(3), tuple(data.values()), **{missing: here})
        assert len(terms) == 1 + 3 + 3
        found.append(torch.stack(list(terms.values())).detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_samples_without_a_label_do_not_count() -> None:
    found = []
    for noise in (0.0, 7.0):
        *inputs, target = batch(12)
        target[8:] = -100
        inputs = [torch.cat([x[:8], x[8:] + noise]) for x in inputs]
        terms = terms_of(World(), (*inputs, target))
        found.append(torch.stack(list(terms.values())).detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_a_batch_without_a_complete_sample_keeps_everything_finite() -> None:
    world = World()
    method = IPRM()
    balancer = made(world, method)
    *inputs, target = batch(12)
    nobody = {"audio": torch.zeros(12, dtype=torch.bool)}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=nobody))
    balancer.modulate()
    world.optimizer.step()
    assert weights(world.model).isfinite().all()
    assert method.probed.tolist() == [0.5]


class Narrow(nn.Module):
    """Features of width 8 and 5."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(4, 8), nn.Linear(5, 5)
        self.head = nn.Linear(13, 3)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.audio(audio), self.visual(visual)], dim=1))
        return logits


def test_features_of_several_widths_are_refused() -> None:
    model = Narrow().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "visual": model.visual}
    balancer = eq.Balancer(IPRM(), model, encoders, model.head, optimizer)
    *inputs, target = batch(12)
    with pytest.raises(eq.SetupError, match=r"one width.*'visual': 5.*same width"):
        balancer.loss(model(*inputs), target)


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = made(world, IPRM(), criterion=nn.functional.mse_loss)
    *inputs, _ = batch(12)
    with pytest.raises(eq.MatchError, match="one class per sample"):
        balancer.loss(world.model(*inputs), torch.rand(12, 3, dtype=torch.float64))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_bad_settings_are_refused(alpha: float) -> None:
    with pytest.raises(eq.SetupError, match=rf"alpha.*0 to 1.*{alpha}"):
        IPRM(alpha)
