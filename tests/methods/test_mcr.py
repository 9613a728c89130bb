"""MCR against loops over samples, and gradients that are combined by the paper's equations."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.mcr import scaled_gradient, supervised_contrast
from equimodal.methods.objective.mcr import MCR
from equimodal.noise import mix
from support.worlds import World, batch, train, weights


def made(world: World, method: MCR, **settings: Any) -> eq.Balancer:
    """A balancer whose own modules are there before the first step."""
    balancer = world.balance(method, **settings)
    widths = dict.fromkeys(balancer.names, (8,))
    balancer.make_modules(eq.Shapes(widths, (3,), torch.device("cpu"), torch.float64))
    return balancer


# ---------------------------------------------------------------------- equations


def contrast(vectors: Tensor, classes: list[int], counted: list[bool], temperature: float) -> Any:
    """Mean over ordered pairs of one class, each against all vectors of other classes."""
    losses = []
    rows = [v / v.norm() for v in vectors]
    known = [i for i in range(len(rows)) if counted[i]]
    for a, b in itertools.permutations(known, 2):
        if classes[a] == classes[b]:
            close = torch.exp(rows[a] @ rows[b] / temperature)
            apart = sum(
                torch.exp(rows[a] @ rows[n] / temperature)
                for n in known
                if classes[n] != classes[a]
            )
            losses.append(-torch.log(close / (close + apart)))
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_contrast_equals_the_loop_over_pairs(modalities: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(modalities, 6, 5, dtype=torch.float64, generator=generator)
    target = torch.randint(3, (6,), generator=generator)
    counted = torch.rand(modalities, 6, generator=generator) > 0.2
    classes = target.repeat(modalities).tolist()
    for mask in (None, counted):
        known = [True] * len(classes) if mask is None else mask.flatten().tolist()
        expected = contrast(vectors.flatten(0, 1), classes, known, 0.3)
        found = supervised_contrast(vectors, target, mask, 0.3)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("target", [[0, 0, 0], [0, 1, 2]])
def test_contrast_without_a_pair_or_without_another_class_has_a_finite_gradient(
    target: list[int],
) -> None:
    vectors = torch.randn(1, 3, 4, requires_grad=True)
    loss = supervised_contrast(vectors, torch.tensor(target))
    loss.backward()
    assert loss == 0
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


@pytest.mark.parametrize("factor", [-1, 0, 1])
def test_scaled_gradients_leave_the_values_bit_for_bit(factor: int) -> None:
    values = (10 ** torch.linspace(-6, 6, 50)).requires_grad_()
    scaled = scaled_gradient(values, factor)
    assert torch.equal(scaled, values)
    if factor:
        (gradient,) = torch.autograd.grad(scaled.sum(), values)
        assert gradient.tolist() == [factor] * 50


# ---------------------------------------------------------------------- a training by hand


class ByHand:
    """The same training, with one backward pass for every set of modalities."""

    def __init__(self, world: World, method: MCR) -> None:
        self.world, self.method, self.draws = world, method, 0
        self.encoders, self.head = list(world.encoders.values()), world.model.head
        self.readouts = copy.deepcopy(method.readouts.layers)
        self.network = copy.deepcopy(method.reconstructions)
        own = [*self.readouts.parameters(), *self.network.parameters()]
        self.own = torch.optim.SGD(own, lr=0.1, momentum=0.9, weight_decay=1e-2)

    def influence(self, z: list[Tensor], sources: dict[int, list[list[int]]]) -> Any:
        """The loss L_S for the modalities that are taken from elsewhere."""
        size, total = len(z[0]), []
        for k in range(self.method.permutations):
            for i in range(size):
                parts = [f[sources[m][k][i] if m in sources else i] for m, f in enumerate(z)]
                p = self.head(torch.cat([f[i] for f in z])).softmax(0)
                q = self.head(torch.cat(parts)).softmax(0)
                r = (p + q) / 2
                total.append(((p * (p / r).log()).sum() + (q * (q / r).log()).sum()) / 2)
        return -sum(total) / len(total)

    def step(self, batch: tuple[Tensor, ...]) -> None:
        *inputs, target = batch
        count, method, size = len(inputs), self.method, len(target)
        z = [encoder(x) for encoder, x in zip(self.encoders, inputs, strict=True)]
        logits = self.head(torch.cat(z, dim=1))
        loss = F.cross_entropy(logits, target)
        for layer, feature in zip(self.readouts, z, strict=True):
            loss = loss + method.unimodal * F.cross_entropy(layer(feature), target)
        classes = target.repeat(count).tolist()
        pairs = contrast(torch.cat(z), classes, [True] * len(classes), method.temperature)
        loss = loss + method.contrast * pairs
        for network in self.network:
            told: Any = network.second(network.first(logits.detach()).clamp(min=0))
            error = (torch.cat(z, dim=1) - told).square().mean()
            loss = loss + method.reconstruction * error
        generator = torch.Generator().manual_seed(mix(0, self.draws))
        self.draws += 1
        numbers = torch.rand(count, method.permutations, size, generator=generator)
        orders = numbers.argsort(dim=2).tolist()
        self.world.optimizer.zero_grad()
        self.own.zero_grad()
        loss.backward(retain_graph=True)
        for r in range(1, count):
            for chosen in itertools.combinations(range(count), r):
                own = method.importance * self.influence(z, {m: orders[m] for m in chosen})
                for m, encoder in enumerate(self.encoders):
                    side = 1 if m in chosen else method.strategy
                    self.add(own, encoder, side)
                if method.strategy == 1:
                    self.add(own, self.head, 1)
        self.world.optimizer.step()
        self.own.step()

    def add(self, loss: Tensor, module: nn.Module, side: int) -> None:
        parameters = list(module.parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad += side * gradient


def tanh(modalities: int) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8 * modalities, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("modalities", "strategy", "linear"),
    [(2, -1, True), (2, 0, True), (2, 1, True), (3, -1, True), (3, 1, True), (3, -1, False),
     (2, 1, False)],
)  # fmt: skip
def test_equals_the_hand_written_training(modalities: int, strategy: int, linear: bool) -> None:
    world, twin = (World(modalities, head=None if linear else tanh(modalities)) for _ in range(2))
    method = MCR(
        importance=2.0, strategy=strategy, permutations=2, unimodal=0.5, reconstruction=0.7
    )
    balancer = made(world, method)
    by_hand = ByHand(twin, method)
    for seed in range(3):
        data = batch(6, modalities, seed=seed)
        train(balancer, [data])
        by_hand.step(data)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-10)
    for found, expected in (
        (method.readouts.layers, by_hand.readouts),
        (method.reconstructions, by_hand.network),
    ):
        torch.testing.assert_close(weights(found), weights(expected), rtol=1e-8, atol=1e-10)


def terms_of(world: World, method: MCR, data: tuple[Tensor, ...], **present: Any) -> Any:
    """What the method adds to the loss in a first step."""
    balancer = made(world, method)
    *inputs, target = data
    logits = world.model(*inputs)
    step = balancer.attached.step(logits, target, present, None, 0)
    return method.objective(step)


def test_weights_of_zero_leave_plain_training() -> None:
    silent = MCR(importance=0, contrast=0, unimodal=0)
    found = []
    for method in (silent, eq.Joint()):
        world = World()
        train(world.balance(method), [batch(12, seed=seed) for seed in range(2)])
        found.append(weights(world.model))
    assert torch.equal(*found)


def test_influence_is_nothing_where_the_head_ignores_a_modality() -> None:
    world = World()
    with torch.no_grad():
        world.model.head.weight[:, 8:] = 0  # the second of two
    terms = terms_of(world, MCR(importance=1.0, contrast=0, unimodal=0), batch(12))
    (first,) = terms.values()
    other = World()
    with torch.no_grad():
        other.model.head.weight[:, 8:] = 0
        other.model.head.weight[:, :8] = 0
    (nothing,) = terms_of(other, MCR(importance=1.0, contrast=0, unimodal=0), batch(12)).values()
    assert first < 0
    assert nothing == 0


@pytest.mark.parametrize("strategy", [-1, 0])
def test_the_head_takes_no_side_unless_all_pull_together(strategy: int) -> None:
    world = World()
    method = MCR(strategy=strategy, contrast=0, unimodal=0)
    (term,) = terms_of(world, method, batch(12)).values()
    parameters = [*world.encoders["audio"].parameters(), *world.model.head.parameters()]
    gradients = torch.autograd.grad(term, parameters, allow_unused=True)
    assert gradients[0] is not None
    assert gradients[-1] is None
    assert gradients[-2] is None


def test_strategies_differ_in_the_gradient_alone() -> None:
    values, gradients = [], []
    for strategy in (-1, 0, 1):
        world = World()
        method = MCR(strategy=strategy, contrast=0, unimodal=0)
        (term,) = terms_of(world, method, batch(12)).values()
        values.append(term.detach())
        first = next(world.encoders["audio"].parameters())
        gradients.append(torch.autograd.grad(term, first)[0])
    assert values[0] == values[1] == values[2]
    torch.testing.assert_close(gradients[0] + gradients[2], 2 * gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])


@pytest.mark.parametrize("strategy", [-1, 1])
def test_running_statistics_see_the_batch_once(strategy: int) -> None:
    statistics = []
    for method in (MCR(strategy=strategy, contrast=0, unimodal=0), eq.Joint()):
        head = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3))
        world = World(head=head)
        balancer = world.balance(method)
        *inputs, target = batch(12)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        statistics.append(torch.cat([b.flatten().double() for b in head.buffers()]))
    torch.testing.assert_close(*statistics, rtol=0, atol=0)


# ---------------------------------------------------------------------- edges


@pytest.mark.parametrize("missing", ["audio", "visual"])
def test_nothing_depends_on_what_stands_in_for_a_missing_modality(missing: str) -> None:
    """But the prediction itself, which the joint loss is of."""
    found = []
    here = torch.arange(12) % 3 > 0
    for noise in (0.0, 7.0):
        data = dict(zip(("audio", "visual", "target"), batch(12), strict=True))
        data[missing] = torch.where(here[:, None], data[missing], data[missing] + noise)
        method = MCR(permutations=3, reconstruction=1.0)
        terms = terms_of(World(), method, tuple(data.values()), **{missing: here})
        assert list(terms) == ["unimodal", "importance", "contrast", "reconstruction"]
        found.append(torch.stack(list(terms.values())).detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_samples_without_a_label_do_not_count() -> None:
    found = []
    for noise in (0.0, 7.0):
        *inputs, target = batch(12)
        target[8:] = -100
        inputs = [torch.cat([x[:8], x[8:] + noise]) for x in inputs]
        terms = terms_of(World(), MCR(reconstruction=1.0), (*inputs, target))
        found.append(torch.stack(list(terms.values())).detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_a_batch_without_a_complete_sample_adds_nothing_that_is_not_finite() -> None:
    world = World()
    balancer = made(world, MCR(reconstruction=1.0))
    *inputs, target = batch(12)
    nobody = {"audio": torch.zeros(12, dtype=torch.bool)}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=nobody))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in world.model.parameters())


class Narrow(nn.Module):
    """Features of width 8 and 5."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(4, 8), nn.Linear(5, 5)
        self.head = nn.Linear(13, 3)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.audio(audio), self.visual(visual)], dim=1))
        return logits


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_contrast_asks_for_features_of_one_width(weight: float) -> None:
    model = Narrow().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "visual": model.visual}
    method = MCR(contrast=weight, reconstruction=1.0)
    balancer = eq.Balancer(method, model, encoders, model.head, optimizer)
    *inputs, target = batch(12)
    logits = model(*inputs)
    if weight:
        with pytest.raises(eq.SetupError, match=r"one width .* contrast=0"):
            balancer.loss(logits, target)
    else:
        balancer.backward(balancer.loss(logits, target))


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = made(world, MCR(), criterion=nn.functional.mse_loss)
    *inputs, _ = batch(12)
    with pytest.raises(eq.MatchError, match="one class per sample"):
        balancer.loss(world.model(*inputs), torch.rand(12, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MCR(importance=-1), ["importance", "-1"]),
        (lambda: MCR(contrast=math.nan), ["contrast", "nan"]),
        (lambda: MCR(unimodal=-0.1), ["unimodal", "-0.1"]),
        (lambda: MCR(reconstruction=math.inf), ["reconstruction", "inf"]),
        (lambda: MCR(strategy=2), ["strategy", "greedy", "2"]),
        (lambda: MCR(permutations=0), ["permutations", "1 or more", "0"]),
        (lambda: MCR(temperature=0), ["temperature", "above 0"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
