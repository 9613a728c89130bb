"""LFM against a loop in plain Python, and its second-order product against finite differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from equimodal.functional import lfm
from equimodal.methods.objective.alignment import FittedWeight, JensenShannon, LearnedWeight
from equimodal.methods.objective.lfm import LFM
from support.classifiers import ByHand
from support.worlds import World, batch, train, weights

generator = np.random.default_rng(0)
FAST = 0.05  # a rate at which the weight moves visibly


def fitted() -> eq.Method:
    return LFM(FittedWeight([0.2, 0.3]), JensenShannon())


# ---------------------------------------------------------------- by hand


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow_divergence(first: Any, second: Any, mixture_first: bool) -> float:
    p, q = (np.exp(u) / np.exp(u).sum() for u in (first, second))
    mix = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    pairs = [(mix, p), (mix, q)] if mixture_first else [(p, mix), (q, mix)]
    return sum(kl(*pair) for pair in pairs) / 2


def parts(logits: list[Tensor], target: Tensor, mixture_first: bool) -> tuple[Tensor, Tensor]:
    """The two losses, with probabilities and logarithms written out."""
    classification = F.cross_entropy(sum(logits) / len(logits), target)
    apart = []
    for first, second in itertools.combinations(logits, 2):
        p, q = first.softmax(1), second.softmax(1)
        mix = (p + q) / 2
        each = (
            mix * (mix / p).log() + mix * (mix / q).log()
            if mixture_first
            else p * (p / mix).log() + q * (q / mix).log()
        )
        apart.append(each.sum(dim=1).mean() / 2)
    return classification, sum(apart) / len(apart)


def slope_by_hand(hand: ByHand, held: Sequence[Tensor], weight: float) -> float:
    """How the first tensor's gradient of L changes along the gradient of C: central differences."""
    *inputs, target = held
    parameters = [*hand.model.encoders.parameters(), *hand.heads.parameters()]

    def losses() -> tuple[Tensor, Tensor]:
        classification, alignment = parts(hand.logits(inputs)[0], target, True)
        return (1 - weight) * classification + weight * alignment, classification

    direction = torch.autograd.grad(losses()[1], parameters)
    step, found = 1e-5, []
    for sign in (1, -2):  # there, and back past the start
        for parameter, along in zip(parameters, direction, strict=True):
            parameter.data += sign * step * along
        (gradient,) = torch.autograd.grad(losses()[0], parameters[:1])
        found.append(gradient)
    for parameter, along in zip(parameters, direction, strict=True):
        parameter.data += step * along
    return float(((found[0] - found[1]) / (2 * step)).mean())


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 0), (3, 1)])
@pytest.mark.parametrize("learned", [True, False])
def test_equals_the_hand_written_loop(modalities: int, seed: int, learned: bool) -> None:
    """Two epochs to a halving of the rate; the last batch of an epoch is a partial one."""
    coefficients = [0.2046, 0.1, -0.01]
    by_hand, world = World(modalities, seed=seed), World(modalities, seed=seed)
    hand = ByHand(by_hand)
    loader = DataLoader(TensorDataset(*batch(20, modalities, seed=4 + seed)), 8)
    held = batch(9, modalities, seed=8 + seed)
    method = (
        LFM(LearnedWeight(FAST, 0.5, halving=2)) if learned else LFM(FittedWeight(coefficients))
    )
    given = {"val_loader": DataLoader(TensorDataset(*held), 9)} if learned else {}
    balancer = world.balance(method, **given)
    weight = 0.5 if learned else 1 - coefficients[0]
    seen = []
    for epoch in range(4):
        for *inputs, target in loader:
            classification, alignment = parts(hand.logits(inputs)[0], target, True)
            hand.backward(2 * ((1 - weight) * classification + weight * alignment))
            hand.step()
        if learned:
            rate = FAST * [1, 0.5, 0.5, 0.25][epoch]  # of the epoch that follows
            weight -= rate * slope_by_hand(hand, held, weight)
            weight = min(max(weight, 0.05), 0.95)
        else:
            weight = 1 - sum(c * (epoch + 1) ** p for p, c in enumerate(coefficients))
        train(balancer, list(loader))
        balancer.end_epoch()
        assert method.alignment.item() == pytest.approx(weight, rel=1e-7)
        seen.append(weight)
    assert len(set(seen)) > 2, "the weight has moved"
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-6, atol=1e-9)
    *inputs, _ = held
    with torch.no_grad():
        mean = torch.stack(hand.logits(inputs)[0]).mean(dim=0)
        torch.testing.assert_close(balancer.predict(*inputs), mean, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------- equations


@pytest.mark.parametrize("classes", [2, 7])
def test_divergences_equal_their_slow_twins(classes: int) -> None:
    first, second = generator.normal(size=(2, 11, classes)) * 3
    for ours, mixture_first in (
        (lfm.mixture_first_divergence, True),
        (lfm.jensen_shannon_divergence, False),
    ):
        found = ours(torch.tensor(first), torch.tensor(second))
        expected = [
            slow_divergence(a, b, mixture_first) for a, b in zip(first, second, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_released_divergence_is_not_that_of_jensen_and_shannon() -> None:
    """It is not bounded, and the order of the arguments of each KL is what makes the difference."""
    sure = torch.tensor([[40.0, 0.0]]), torch.tensor([[0.0, 40.0]])
    assert lfm.jensen_shannon_divergence(*sure).item() == pytest.approx(math.log(2))
    assert lfm.mixture_first_divergence(*sure).item() > 10


def test_divergences_of_certain_predictions_are_finite() -> None:
    first = torch.tensor([[200.0, 0.0], [0.0, 0.0]], requires_grad=True)
    for divergence in (lfm.mixture_first_divergence, lfm.jensen_shannon_divergence):
        value = divergence(first, torch.tensor([[0.0, 200.0], [0.0, 0.0]])).sum()
        (gradient,) = torch.autograd.grad(value, [first])
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_alignment_of_three_reduces_to_two_where_the_third_is_absent() -> None:
    *inputs, target = batch(12, 3)
    two, three = World(2), World(3)
    for name in two.encoders:
        three.encoders[name].load_state_dict(two.encoders[name].state_dict())
    losses = []
    for world, given in ((two, inputs[:2]), (three, inputs)):
        method = LFM(FittedWeight([0.3]))
        balancer = world.balance(method)
        absent = {"text": torch.zeros(12, dtype=torch.bool)} if world is three else None
        losses.append(balancer.loss(world.model(*given), target, present=absent))
        assert len(method.readouts.layers) == len(given)
    logits = ByHand(two).logits(inputs[:2])[0]
    classification, alignment = parts(logits, target, True)
    torch.testing.assert_close(losses[0], 2 * (0.3 * classification + 0.7 * alignment))
    torch.testing.assert_close(losses[1], 2 * (0.3 * classification + 0.7 * alignment))


@pytest.mark.parametrize("parameters", [0, 1])
def test_the_product_leaves_out_what_the_losses_do_not_reach(parameters: int) -> None:
    unused, used = (torch.tensor([2.0], requires_grad=True) for _ in range(2))
    given = [unused, used][: 1 + parameters]
    slope = lfm.weight_slope(torch.tensor(0.5), used.square().sum(), used.pow(3).sum(), given)
    assert slope.item() == (28 if parameters else 0)  # 7 times 4


# ---------------------------------------------------------------- the learned weight


def estimate(world: World, held: Any, **settings: Any) -> tuple[LFM, eq.Balancer]:
    method = LFM(LearnedWeight(FAST, **{"halving": 20, **settings}))
    balancer = world.balance(method, val_loader=held)
    train(balancer, [batch()])
    return method, balancer


@pytest.mark.parametrize(("slope", "bound"), [(1.0, 0.05), (-1.0, 0.95)])
def test_the_weight_stays_within_its_bounds(slope: float, bound: float) -> None:
    following = LearnedWeight(1e9, halving=1).following(
        torch.tensor(0.5), 1, lambda: torch.tensor(slope)
    )
    assert following.item() == pytest.approx(bound)


def test_setting_the_weight_leaves_the_model_as_it_was() -> None:
    """Its BatchNorm and dropout above all: held-out data must not enter the model."""
    world = World()
    world.encoders["audio"].append(nn.BatchNorm1d(8, dtype=torch.float64))
    world.encoders["audio"].append(nn.Dropout(0.5))
    _, balancer = estimate(world, [batch(seed=3)])
    gradients = [p.grad if p.grad is None else p.grad.clone() for p in world.model.parameters()]
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    random = torch.get_rng_state()
    balancer.end_epoch()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[n], value) for n, value in world.model.state_dict().items())
    assert all(module.training for module in world.model.modules())
    assert str(gradients) == str([p.grad for p in world.model.parameters()])


class Attending(nn.Module):
    """Self-attention over four positions of two numbers, fused in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        sequence = x.view(len(x), 4, 2)
        attended: Tensor = self.attention(sequence, sequence, sequence, need_weights=False)[0]
        return attended.flatten(1)


def test_the_product_goes_through_fused_attention() -> None:
    world = World()
    world.encoders["audio"].append(Attending())
    method, balancer = estimate(world, [batch(seed=3)], start=0.5)
    balancer.end_epoch()
    assert method.alignment.item() != 0.5
    assert method.alignment.isfinite()


def test_the_product_of_a_compiled_model_is_that_of_the_model() -> None:
    """Compiled code has no second derivative, so that the pass runs without."""
    found = []
    for compiled in (False, True):
        world = World()
        method, balancer = estimate(world, [batch(seed=3)], start=0.5)
        if compiled:
            world.model.compile(backend="aot_eager")
        train(balancer, [batch(seed=2)])
        balancer.end_epoch()
        found.append(method.alignment)
    torch._dynamo.reset()
    torch.testing.assert_close(*found)
    assert found[0] != 0.5


def test_held_out_data_is_asked_for_by_the_learned_weight_alone() -> None:
    with pytest.raises(eq.SetupError, match="never the test set"):
        World().balance(LFM(LearnedWeight(halving=1)))
    World().balance(LFM(FittedWeight([0.2])))
    world = World()
    _, balancer = estimate(world, [])
    with pytest.raises(eq.SetupError, match="val_loader is empty"):
        balancer.end_epoch()


def test_it_starts_with_alignment_and_not_with_classification() -> None:
    """A toolkit has the two weights the wrong way round."""
    world = World()
    balancer = world.balance(LFM(LearnedWeight(halving=1)), val_loader=[])
    *inputs, target = batch()
    loss = balancer.loss(world.model(*inputs), target)
    classification, alignment = parts(ByHand(World()).logits(inputs)[0], target, True)
    torch.testing.assert_close(loss, 2 * (0.05 * classification + 0.95 * alignment))


# ---------------------------------------------------------------- edges


def test_missing_modalities_and_ignored_targets() -> None:
    *inputs, target = batch(12)
    target = target.clone()
    target[11] = -100
    present = {"audio": torch.arange(12) != 0, "visual": (torch.arange(12) > 4)}
    world = World()
    loss = world.balance(LFM(FittedWeight([0.4]))).loss(
        world.model(*inputs), target, present=present
    )
    first, second = ByHand(World()).logits(inputs)[0]
    has = list(zip(*(present[name].tolist() for name in world.encoders), strict=True))
    classification, alignment = [], []
    for i in range(11):
        own = [u[i] for u, there in zip((first, second), has[i], strict=True) if there]
        if own:
            classification.append(F.cross_entropy(sum(own) / len(own), target[i]))
        if len(own) == 2:
            alignment.append(slow_divergence(*(u.detach().numpy() for u in own), True))
    expected = 2 * (0.4 * sum(classification) + 0.6 * sum(alignment)) / 11  # that have a label
    torch.testing.assert_close(loss, expected)


def test_a_batch_without_anybody_gives_zero() -> None:
    *inputs, target = batch(6)
    nobody = dict.fromkeys(("audio", "visual"), torch.zeros(6, dtype=torch.bool))
    world = World()
    balancer = world.balance(LFM(FittedWeight([0.4])))
    loss = balancer.loss(world.model(*inputs), target, present=nobody)
    balancer.backward(loss)
    assert loss == 0
    gradients = [p.grad for p in world.model.encoders.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LearnedWeight(rate=-1), ["LearnedWeight(rate)", "-1"]),
        (lambda: LearnedWeight(start=1.0), ["LearnedWeight(start)", "0.05 to 0.95", "1.0"]),
        (lambda: LearnedWeight(halving=0), ["LearnedWeight(halving)", "0"]),
        (lambda: FittedWeight([]), ["FittedWeight(coefficients)", "[]"]),
        (lambda: FittedWeight([math.nan]), ["FittedWeight(coefficients)", "nan"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
def test_the_fitted_weight_conforms(check: Callable[[Any], None]) -> None:
    check(fitted)
