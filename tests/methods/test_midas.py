"""MIDAS against loops over samples and modalities, written from the paper's equations."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal import testing
from equimodal.functional.midas import (
    misaligned_loss,
    misaligned_sources,
    replaced_similarity,
    weak_modality_weight,
)
from equimodal.methods.objective.midas import MIDAS
from equimodal.noise import mix
from support.worlds import World, batch, train, weights

ce = nn.functional.cross_entropy


def drawn(modalities: int, samples: int, seed: int, draw: int) -> Tensor:
    generator = torch.Generator().manual_seed(mix(seed, draw))
    return torch.rand(2 * modalities - 1, samples, generator=generator)


def sources_of(labels: list[int], numbers: Tensor) -> list[list[int] | None]:
    """For each sample which sample each modality is taken from; None where there is no other."""
    modalities = (len(numbers) + 1) // 2
    found: list[list[int] | None] = []
    for i, label in enumerate(labels):
        others = [j for j, other in enumerate(labels) if other != label]
        if not others:
            found.append(None)
            continue
        drawn = [i] + [others[int(numbers[k, i] * len(others))] for k in range(modalities - 1)]
        keys = numbers[modalities - 1 :, i].tolist()
        found.append([drawn[k] for k in sorted(range(modalities), key=keys.__getitem__)])
    return found


class Twin:
    """The same training, by hand."""

    def __init__(self, world: World, method: MIDAS, modalities: int) -> None:
        self.world, self.method, self.modalities = world, method, modalities
        self.heads = copy.deepcopy(method.readouts.layers)
        world.optimizer.add_param_group({"params": list(self.heads.parameters())})
        self.alpha = [1.0] * modalities
        self.draws = 0

    def step(self, inputs: list[Tensor], target: Tensor, warming: bool) -> Tensor:
        encoders = list(self.world.encoders.values())
        head = self.world.model.head
        z = [e(x) for e, x in zip(encoders, inputs, strict=True)]
        u = [h(f) for h, f in zip(self.heads, z, strict=True)]
        loss = sum(ce(logits, target) for logits in u)
        optimizer = self.world.optimizer
        optimizer.zero_grad()
        if warming:
            loss.backward()
            for parameter in head.parameters():
                parameter.grad = None
            optimizer.step()
            return loss
        loss = loss + ce(head(torch.cat(z, 1)), target)
        labels, M = target.tolist(), self.modalities
        numbers = drawn(M, len(labels), 0, self.draws)
        self.draws += 1
        terms, targets, predictions = [], [], []
        for i, source in enumerate(sources_of(labels, numbers)):
            if source is None:
                continue
            own = [labels[j] for j in source]
            p = [float(u[m][source[m]].detach().softmax(0)[own[m]]) for m in range(M)]
            c = [value / sum(p) for value in p]
            mixed = head(torch.cat([z[m][source[m]] for m in range(M)])[None])[0].log_softmax(0)
            replaced = [m for m in range(M) if source[m] != i]
            cosines = []
            for m in replaced:
                old, new = z[m][i].detach(), z[m][source[m]].detach()
                cosines.append(float(torch.dot(old, new) / old.norm() / new.norm()))
            s = sum(cosines) / len(cosines)
            inner = -sum(self.alpha[m] * c[m] * mixed[own[m]] for m in range(M))
            terms.append((1 + (s + 1) / 2) * inner)
            q = [float(mixed[k].detach().exp()) for k in own]
            targets.append(c)
            predictions.append([value / sum(q) for value in q])
        if terms:
            loss = loss + self.method.weight * sum(terms) / len(terms)
        loss.backward()
        optimizer.step()
        if terms:
            mean = [sum(c[m] for c in targets) / len(targets) for m in range(M)]
            got = [sum(c[m] for c in predictions) / len(targets) for m in range(M)]
            weakest = mean.index(min(mean))
            delta = mean[weakest] - got[weakest]
            if self.method.signal is torch.sign:
                delta = math.copysign(1, delta)
            raised = max(1.0, self.alpha[weakest] + self.method.step * delta)
            self.alpha = [raised if m == weakest else 1.0 for m in range(M)]
        return loss


def shapes(world: World) -> eq.Shapes:
    return eq.Shapes(dict.fromkeys(world.encoders, (8,)), (3,), torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("signal", [None, torch.sign])
def test_training_equals_a_plain_loop(modalities: int, seed: int, signal: Any) -> None:
    """A step of warm-up and four of training, with weights that move."""
    method = MIDAS(weight=1.7, step=0.5, warm_up=1, signal=signal)
    world, other = World(modalities, seed=seed), World(modalities, seed=seed)
    balancer = world.balance(method)
    balancer.make_modules(shapes(world))
    twin = Twin(other, method, modalities)
    method.modality_weights.fill_(1.5)  # so that they count from the first step on
    twin.alpha = [1.5] * modalities
    for number in range(5):
        *inputs, target = batch(9, modalities, seed=seed + number)
        found = balancer.loss(world.model(*inputs), target)
        expected = twin.step(inputs, target, warming=number == 0)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        balancer.backward(found)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
        alpha = torch.tensor(twin.alpha, dtype=torch.float64)
        torch.testing.assert_close(method.modality_weights, alpha, rtol=1e-9, atol=0)
        if number == 0:
            balancer.end_epoch()
    torch.testing.assert_close(weights(world.model), weights(other.model), rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(weights(method.readouts), weights(twin.heads), rtol=1e-8, atol=1e-11)


def test_the_warm_up_leaves_the_head_alone() -> None:
    world = World()
    balancer = world.balance(MIDAS(warm_up=1))
    head = [p.detach().clone() for p in world.model.head.parameters()]
    before = weights(world.model)
    train(balancer, [batch(12, seed=s) for s in range(3)])
    assert all(map(torch.equal, head, world.model.head.parameters()))
    assert not torch.equal(before, weights(world.model))
    balancer.end_epoch()
    train(balancer, [batch(12)])
    assert not any(map(torch.equal, head, world.model.head.parameters()))


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_sources_are_of_another_class_and_chosen_evenly(modalities: int) -> None:
    labels = torch.tensor([0, 0, 1, 2, 1, 0])
    counts = torch.zeros(6, 6)
    for draw in range(300):
        numbers = drawn(modalities, 6, 1, draw)
        sources, valid = misaligned_sources(labels, torch.ones(6, dtype=torch.bool), numbers)
        assert valid.all()
        assert sources.T.tolist() == sources_of(labels.tolist(), numbers)
        own = sources == torch.arange(6)
        assert (own.sum(0) == 1).all()
        assert (labels[sources] != labels)[~own].all()
        for row in sources:
            counts[torch.arange(6), row] += 1
    other = labels[:, None] != labels
    shares = counts / counts.masked_fill(~other, 0).sum(1, keepdim=True)
    expected = 1 / other.sum(1, keepdim=True)
    assert ((shares - expected).abs()[other] < 0.12).all()


def test_a_batch_of_one_class_has_no_misaligned_samples() -> None:
    world = World()
    method = MIDAS(warm_up=0)
    balancer = world.balance(method)
    *inputs, _ = batch(6)
    target = torch.ones(6, dtype=torch.long)
    found = balancer.loss(world.model(*inputs), target)
    features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
    alone = sum(
        ce(layer(z), target) for layer, z in zip(method.readouts.layers, features, strict=True)
    )
    torch.testing.assert_close(found, ce(world.model(*inputs), target) + alone)
    before = method.modality_weights.clone()
    balancer.backward(found)
    balancer.modulate()
    world.optimizer.step()
    assert torch.equal(method.modality_weights, before)
    assert weights(world.model).isfinite().all()


def test_incomplete_and_ignored_samples_are_not_put_together() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    usable = torch.tensor([True, False, True, True])
    for draw in range(50):
        sources, valid = misaligned_sources(labels, usable, drawn(2, 4, 0, draw))
        assert valid.tolist() == [True, False, True, True]
        assert not (sources[:, valid] == 1).any()
    world = World()
    balancer = world.balance(MIDAS(warm_up=0))
    *inputs, target = batch(8)
    target[3] = -100
    present = {"visual": torch.arange(8) % 4 > 0}
    found = balancer.loss(world.model(*inputs), target, present=present)
    balancer.backward(found)
    assert weights(world.model).isfinite().all()
    measured = balancer.methods.methods[0]._measured
    assert measured["samples"] == 5


def test_the_example_of_the_paper() -> None:
    """Confidences of 0.9 and 0.3 make a label of 0.75 and 0.25."""
    confidence = torch.tensor([[0.9], [0.3]]).log().softmax(0)
    torch.testing.assert_close(confidence, torch.tensor([[0.75], [0.25]]))
    logs = torch.tensor([[0.2], [0.7]]).log()
    found = misaligned_loss(
        logs, confidence, torch.tensor([1.0, 2.0]), torch.tensor([0.4]), torch.tensor([True])
    )
    expected = (1 + 1.4 / 2) * -(0.75 * math.log(0.2) + 2 * 0.25 * math.log(0.7))
    assert found.item() == pytest.approx(expected)


def test_a_third_modality_without_confidence_changes_nothing() -> None:
    """M = 3 reduces to M = 2."""
    confidence, logs = torch.rand(2, 5).softmax(0), torch.rand(2, 5).log_softmax(0)
    similarity, valid = torch.rand(5), torch.ones(5, dtype=torch.bool)
    two = misaligned_loss(logs, confidence, torch.ones(2), similarity, valid)
    more = [torch.cat([x, y]) for x, y in ((confidence, torch.zeros(1, 5)), (logs, logs[:1]))]
    three = misaligned_loss(more[1], more[0], torch.ones(3), similarity, valid)
    torch.testing.assert_close(three, two)


@pytest.mark.parametrize(
    ("target", "predicted", "expected"),
    [
        ([0.75, 0.25], [0.90, 0.10], [1.0, 1.3 + 0.015]),  # neglected: raised
        ([0.75, 0.25], [0.30, 0.70], [1.0, 1.3 - 0.045]),  # not any more: lowered
        ([0.25, 0.75], [0.10, 0.90], [1.0 + 0.015, 1.0]),  # the other is weaker now
        ([0.75, 0.25], [-9.0, 10.0], [1.0, 1.0]),  # never below 1
        ([math.nan, math.nan], [math.nan, math.nan], [1.0, 1.3]),  # nothing was seen
    ],
)
def test_the_weight_of_the_weak_modality(
    target: list[float], predicted: list[float], expected: list[float]
) -> None:
    means = torch.tensor(target, dtype=torch.float64)
    signal = means - torch.tensor(predicted, dtype=torch.float64)
    old = torch.tensor([1.0, 1.3], dtype=torch.float64)
    found = weak_modality_weight(old, means, signal, step=0.1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_similarity_of_a_feature_of_zeros_is_zero() -> None:
    features = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert replaced_similarity(features, torch.tensor([1, 0])).tolist() == [0, 0]


def test_labels_and_weights_carry_no_gradient() -> None:
    """The classifiers learn from true labels alone."""
    gradients = []
    for weight in (0.0, 5.0):
        world = World()
        method = MIDAS(weight=weight, warm_up=0)
        balancer = world.balance(method)
        *inputs, target = batch(12)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        gradients.append([p.grad.clone() for p in method.readouts.parameters()])
        gradients[-1].append(next(world.model.head.parameters()).grad.clone())
    *of_classifiers, of_head = zip(*gradients, strict=True)
    assert all(torch.equal(a, b) for a, b in of_classifiers)
    assert not torch.equal(*of_head)


@pytest.mark.parametrize("what", ["weight", "step", "warm_up"])
@pytest.mark.parametrize("value", [-1, math.inf, math.nan])
def test_bad_settings_are_refused(what: str, value: float) -> None:
    with pytest.raises(eq.SetupError, match=rf"MIDAS\({what}\): expected a number of 0 or more"):
        MIDAS(**{what: value})  # type: ignore[arg-type]


def test_other_tasks_are_refused() -> None:
    world = World()
    *inputs, _ = batch(6)
    balancer = world.balance(MIDAS(warm_up=0), criterion=nn.functional.mse_loss)
    with pytest.raises(eq.MatchError, match="MIDAS is defined for one class per sample"):
        balancer.loss(world.model(*inputs), torch.zeros(6, 3, dtype=torch.float64))


def test_features_with_space_are_put_together_whole() -> None:
    class Maps(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = nn.Linear(width, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).view(-1, 3, 2, 2)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(24, 3)

        def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
            return self.layer(torch.cat([audio, visual], 1).flatten(1))

    encoders = {"audio": Maps(4), "visual": Maps(5)}
    model = nn.ModuleDict({**encoders, "head": Head()}).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(MIDAS(warm_up=0), model, encoders, model["head"], optimizer)
    audio, visual, target = batch(10)
    loss = balancer.loss(model["head"](model["audio"](audio), model["visual"](visual)), target)
    balancer.backward(loss)
    balancer.modulate()
    optimizer.step()
    assert weights(model).isfinite().all()


def test_a_frozen_encoder_is_left_as_it_is() -> None:
    """It changes no gradient, so that there need not be one."""
    world = World()
    world.encoders["audio"].requires_grad_(False)
    before = weights(world.encoders["audio"])
    train(world.balance(MIDAS(warm_up=0)), [batch()])
    assert torch.equal(weights(world.encoders["audio"]), before)


def at_once() -> eq.Method:
    return MIDAS(warm_up=0)


def after_one() -> eq.Method:
    return MIDAS(warm_up=1)


@pytest.mark.parametrize("make", [after_one])
@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
def test_conformance(make: Callable[[], eq.Method], check: Callable[[Any], None]) -> None:
    check(make)
