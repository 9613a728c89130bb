"""CGGM against a hand-written loop, its edges, and the caveats of the released code."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal import testing
from equimodal.functional.cggm import cggm_coefficients, correctness, direction_loss
from equimodal.methods.gradient.cggm import CGGM
from equimodal.methods.gradient.direction import Direction, WeightCosine
from support.worlds import Silencing, World, batch, train, weights


def prepared(world: World, balancer: eq.Balancer) -> nn.ModuleList:
    """Make the method's classifiers now, and return copies of them."""
    (method,) = balancer.methods
    features = dict.fromkeys(world.encoders, (8,))
    shapes = eq.Shapes(features, (world.classes,), torch.device("cpu"), torch.float64)
    balancer.make_modules(shapes)
    assert isinstance(method, CGGM)
    return copy.deepcopy(method.readouts.layers)


def accuracy(logits: Tensor, target: Tensor) -> float:
    rows = zip(logits.detach().numpy(), target.tolist(), strict=True)
    return sum(int(np.argmax(row)) == y for row, y in rows) / len(target)


def errors(logits: Tensor, target: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy on the logits, written down: p - y over B."""
    return (logits.softmax(1) - nn.functional.one_hot(target, logits.shape[1])) / len(target)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum() / first.norm() / second.norm()


def shares(improvements: list[float], low: float, high: float) -> list[float]:
    total = sum(improvements) + 1e-8
    return [min(max((total - d) / total, low), high) for d in improvements]


def hand_written(
    world: World,
    classifiers: nn.ModuleList,
    batches: list[tuple[Tensor, ...]],
    of_weights: bool = False,
) -> list[list[float]]:
    own = torch.optim.SGD(classifiers.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    count = world.modalities
    before, c = [0.0] * count, [0.0] * count
    history = []
    for *inputs, target in batches:
        features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        fused = world.model.head(torch.cat(features, dim=1))
        outputs = [u(z.detach()) for u, z in zip(classifiers, features, strict=True)]
        loss = nn.functional.cross_entropy(fused, target)
        direction = torch.zeros((), dtype=torch.float64)
        for m, (classifier, output, z) in enumerate(
            zip(classifiers, outputs, features, strict=True)
        ):
            loss = loss + nn.functional.cross_entropy(output, target)
            if of_weights:
                cos = cosine(classifier.weight, world.model.head.weight[:, 8 * m : 8 * m + 8])
            else:
                alone = errors(output, target).T @ z
                cos = cosine(alone.detach(), errors(fused, target).T @ z)
            direction = direction + abs(c[m]) - c[m] * cos
        for optimizer in (world.optimizer, own):
            optimizer.zero_grad()
        (loss + 0.3 * direction / count).backward()
        now = [accuracy(output, target) for output in outputs]
        c = shares([n - b for n, b in zip(now, before, strict=True)], -0.5, 1.5)
        factors = [1.3 * share for share in c]
        before = now
        history.append(factors)
        for factor, encoder in zip(factors, world.encoders.values(), strict=True):
            for parameter in encoder.parameters():
                parameter.grad = factor * parameter.grad
        world.optimizer.step()
        own.step()
    return history


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2), (3, 3)])
@pytest.mark.parametrize("direction", [None, WeightCosine()])
def test_equals_the_hand_written_loop(
    modalities: int, seed: int, direction: Direction | None
) -> None:
    batches = [batch(11, modalities, seed=10 * seed + i) for i in range(7)]
    ours, theirs = World(modalities, seed=seed), World(modalities, seed=seed)
    method = CGGM(1.3, 0.3, bounds=(-0.5, 1.5), direction=direction)
    balancer = ours.balance(method, seed=seed)
    classifiers = prepared(ours, balancer)
    history = hand_written(theirs, classifiers, batches, direction is not None)
    assert len({round(factor, 6) for factors in history for factor in factors}) > 4
    train(balancer, batches)
    torch.testing.assert_close(weights(ours.model), weights(theirs.model), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        weights(method.readouts.layers), weights(classifiers), rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("seed", range(5))
def test_coefficients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = (rng.integers(-5, 9, size=2 + seed % 3) / 16).tolist()
    found = cggm_coefficients(torch.tensor(given, dtype=torch.float64))
    total = sum(given) + 1e-8
    expected = [(total - each) / total for each in given]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_coefficients_of_three_of_which_one_is_unknown_are_those_of_two() -> None:
    two = torch.tensor([0.25, 0.125], dtype=torch.float64)
    three = torch.tensor([0.25, 0.125, math.nan], dtype=torch.float64)
    torch.testing.assert_close(cggm_coefficients(three)[:2], cggm_coefficients(two))
    assert cggm_coefficients(three)[2].isnan()
    assert cggm_coefficients(torch.tensor([0.25, math.nan])).isnan().all()


def test_correctness_is_that_of_classes_signs_and_labels() -> None:
    logits = torch.tensor([[2.0, -1.0], [-0.5, 0.5]])
    assert correctness(logits, torch.tensor([0, 0])).tolist() == [1, 0]
    assert correctness(logits, torch.tensor([[1.0, 1.0], [0.0, 1.0]])).tolist() == [0.5, 1]
    assert correctness(logits[:, :1], torch.tensor([3.1, 2.0])).tolist() == [1, 0]
    dense = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # one sample, two classes, two positions
    assert correctness(dense, torch.tensor([[0, 0]])).tolist() == [0.5]


# ---------------------------------------------------------------------- the released code


def directed(world: World, method: CGGM, *batch: Tensor) -> Tensor:
    """Return the direction term with all shares 1/2."""
    balancer = world.balance(method)
    prepared(world, balancer)
    method.shares.fill_(0.5)
    *inputs, target = batch
    step = balancer.attached.step(world.model(*inputs), target, {}, None, 0)
    return method.objective(step)["direction"]


def test_the_second_gradient_is_that_of_a_linear_heads_own_weight() -> None:
    world = World()
    method = CGGM(weight=1.0)
    *inputs, target = batch(11)
    term = directed(world, method, *batch(11))
    features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
    loss = nn.functional.cross_entropy(world.model.head(torch.cat(features, 1)), target)
    (fused,) = torch.autograd.grad(loss, world.model.head.weight)
    cosines = []
    for m, layer in enumerate(method.readouts.layers):
        alone = nn.functional.cross_entropy(layer(features[m]), target)
        (own,) = torch.autograd.grad(alone, layer.weight, retain_graph=True)
        cosines.append(cosine(own, fused[:, 8 * m : 8 * m + 8]))
    expected = direction_loss(torch.tensor([0.5, 0.5]), torch.stack(cosines))
    torch.testing.assert_close(term.detach(), expected.detach())


def test_the_direction_loss_trains_the_encoders() -> None:
    """That of the released code, of weights, reaches two weights and no encoder."""
    for direction, reached in ((None, True), (WeightCosine(), False)):
        world = World()
        term = directed(world, CGGM(weight=1.0, direction=direction), *batch(11))
        parameters = [world.model.head.weight, *world.model.encoders.parameters()]
        of_head, *of_encoders = torch.autograd.grad(term, parameters, allow_unused=True)
        assert of_head.any()
        assert any(g is not None and g.any() for g in of_encoders) is reached


def test_the_classifiers_train_on_features_without_a_graph() -> None:
    """With weight 0 and factors of 1, encoders get the gradient of plain training."""
    ours, plain = World(), World()
    train(ours.balance(CGGM(scale=1.0, weight=0.0, bounds=(1.0, 1.0))), [batch(11)])
    train(plain.balance(eq.Joint()), [batch(11)])
    torch.testing.assert_close(weights(ours.model), weights(plain.model), rtol=1e-12, atol=1e-12)


def test_weights_of_another_head_are_refused() -> None:
    head = nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))
    world = World(head=head)
    balancer = world.balance(CGGM(direction=WeightCosine()))
    *inputs, target = batch(5)
    with pytest.raises(eq.MatchError, match=r"Sequential.*use eq.GradientCosine\(\)"):
        balancer.loss(world.model(*inputs), target)


def judged(method: CGGM, *accuracies: list[float]) -> list[list[float]]:
    """Return the factors of steps whose classifiers had these accuracies."""
    method.bind(("audio", "visual", "text")[: len(accuracies[0])], 0)
    method.accuracies = torch.zeros(len(accuracies[0]), dtype=torch.float64)
    found = []
    for each in accuracies:
        measured = {
            "right": 8 * torch.tensor(each, dtype=torch.float64).nan_to_num(0.0),
            "counts": 8 * torch.tensor([float(not math.isnan(a)) for a in each]).double(),
        }
        evidence = eq.Evidence(method.names, torch.zeros(len(each)), [], measured)
        found.append(method.coefficients(evidence).tolist())
        method.commit()
    return found


def test_factors_are_bounded_where_progress_and_regress_cancel_out() -> None:
    """Without bounds they are 10^7 here: the released code is saved by clipping alone."""
    _, factors = judged(CGGM(scale=1.0), [0.5, 0.5], [0.75, 0.25])
    assert factors == pytest.approx([0.2, 1.0])
    free = CGGM(scale=1.0, bounds=(-math.inf, math.inf))
    _, factors = judged(free, [0.5, 0.5], [0.75, 0.25])
    assert max(map(abs, factors)) > 1e6


def test_the_first_step_scales_and_steps_without_any_change_freeze_nobody() -> None:
    """As in the released code: accuracies rise from 0, and its numerator holds the constant too."""
    first, second = judged(CGGM(scale=1.3), [0.5, 0.25], [0.5, 0.25])
    assert first == pytest.approx([1.3 / 3, 2.6 / 3])
    assert second == pytest.approx([1.3, 1.3])


def test_a_modality_that_is_missing_keeps_its_accuracy() -> None:
    method = CGGM(scale=1.0)
    _, second, third = judged(method, [0.5, 0.5, 0.5], [0.75, 0.75, math.nan], [0.75, 0.75, 1.0])
    assert second == pytest.approx([0.5, 0.5, 1.0])
    assert third == pytest.approx([1.0, 1.0, 0.2])


def test_the_direction_loss_of_three_reduces_to_two_where_the_third_is_absent() -> None:
    """M counts the modalities that there are, as in the shares."""
    cosines = torch.tensor([0.5, -0.25, 0.1], dtype=torch.float64)
    shares = torch.tensor([0.75, 0.5, math.nan], dtype=torch.float64)
    found = direction_loss(shares, cosines)
    torch.testing.assert_close(found, direction_loss(shares[:2], cosines[:2]))
    assert found.item() == pytest.approx((1.25 - 0.375 + 0.125) / 2)
    assert direction_loss(torch.full((2,), math.nan), cosines[:2]) == 0


def test_one_number_per_sample_is_directed_as_a_column_is() -> None:
    """The user squeezes what the head returned, as in regression."""

    class Squeezed(nn.Module):
        def __init__(self, dims: int) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net, self.dims = testing.SmallModel(2, 1).double(), dims

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.net(*inputs).view(-1, *[1] * (self.dims - 1))

    found = []
    for dims in (1, 2):
        model = Squeezed(dims)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        encoders = dict(model.net.encoders.items())
        balancer = eq.Balancer(
            CGGM(), model, encoders, model.net.head, optimizer, criterion=nn.MSELoss()
        )
        batches = [(*batch(9, seed=s)[:2], batch(9, seed=s)[0].sum(1)) for s in range(3)]
        train(balancer, [(a, v, y.view(-1, *[1] * (dims - 1))) for a, v, y in batches])
        found.append(weights(model))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_the_fused_gradient_is_that_of_features_as_they_entered_the_head() -> None:
    """A modality that another method takes away has none, and its encoder is not directed."""
    world = World()
    method = CGGM(weight=1.0)
    balancer = world.balance(method, Silencing())
    train(balancer, [batch(11, seed=s) for s in range(2)])
    *inputs, target = batch(11)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    assert not any(p.grad.any() for p in world.encoders["audio"].parameters())
    assert any(p.grad.any() for p in world.encoders["visual"].parameters())


def test_a_missing_modality_and_an_ignored_batch_run_through() -> None:
    world = World()
    method = CGGM()
    balancer = world.balance(method, criterion=nn.CrossEntropyLoss(reduction="sum"))
    *inputs, classes = batch(6)
    present = {"visual": torch.zeros(6, dtype=torch.bool)}
    for target in (classes, torch.full_like(classes, -100)):
        balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    assert weights(world.model).isfinite().all()
    assert method.accuracies[0].isfinite()
    assert method.accuracies[1] == 0, "none is known"


def test_a_frozen_encoder_is_left_out_by_name() -> None:
    world = World()
    world.encoders["audio"].requires_grad_(False)
    before = weights(world.model.encoders["audio"])
    with pytest.warns(eq.BalanceWarning, match=r"CGGM\(modalities=...\)"):
        world.balance(CGGM()).detach()
    train(world.balance(CGGM(modalities=["visual"])), [batch(9), batch(9, seed=3)])
    assert torch.equal(weights(world.model.encoders["audio"]), before)


def test_without_the_direction_loss_micro_batches_are_the_large_batch() -> None:
    large, small = World(), World()
    batches = [batch(12, seed=i) for i in range(4)]
    train(large.balance(CGGM(weight=0.0)), batches)
    train(small.balance(CGGM(weight=0.0)), batches, micro=3)
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-9, atol=1e-12)


def test_accuracy_by_the_users_own_measure() -> None:
    world = World()
    method = CGGM(correct=lambda logits, target: torch.ones(len(target)))
    train(world.balance(method), [batch(6)])
    assert method.accuracies.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale": 0.0}, r"CGGM\(scale\).*above 0"),
        ({"weight": -0.1}, r"CGGM\(weight\).*0 or more"),
        ({"bounds": (1.0, 0.0)}, r"CGGM\(bounds\).*found \(1.0, 0.0\)"),
        ({"direction": "weights"}, r"eq.WeightCosine\(\), found 'weights'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        CGGM(**settings)


def test_direction_is_what_a_subclass_makes_of_it() -> None:
    with pytest.raises(NotImplementedError):
        Direction()(None, {}, {})  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the contract


def released() -> eq.Method:
    return CGGM(direction=WeightCosine())


@pytest.mark.parametrize("make", [released])
@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
def test_passes_the_conformance_kit(check: Callable[[Any], None], make: Any) -> None:
    check(make)


def test_a_model_compiled_after_attaching_trains_alike() -> None:
    torch._dynamo.reset()
    plain, world = World(), World()
    balancer = world.balance(CGGM())
    balancer.check(batch())
    compiled: Any = torch.compile(world.model, backend="aot_eager")
    train(balancer, [batch(seed=s) for s in range(3)], model=compiled)
    train(plain.balance(CGGM()), [batch(seed=s) for s in range(3)])
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-9, atol=1e-9)
