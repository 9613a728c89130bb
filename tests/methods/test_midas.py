"""MIDAS against loops over samples and modalities, and against the released code."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
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
    return torch.rand(modalities - 1, samples, generator=generator)


def ways_of(keys: Tensor) -> list[list[list[int]]]:
    """For each way and sample, which sample each modality is taken from."""
    modalities, samples = len(keys) + 1, keys.shape[1]
    orders = [list(range(samples))]
    for row in keys.tolist():
        orders.append(sorted(range(samples), key=row.__getitem__))
    return [
        [[orders[(m - way) % modalities][i] for m in range(modalities)] for i in range(samples)]
        for way in range(modalities)
    ]


class Twin:
    """The same training, by hand."""

    def __init__(self, world: World, method: MIDAS, modalities: int) -> None:
        self.world, self.method, self.modalities = world, method, modalities
        self.heads = copy.deepcopy(method.readouts.layers)
        world.optimizer.add_param_group({"params": list(self.heads.parameters())})
        self.alpha = 1.0
        self.draws = 0

    def step(self, inputs: list[Tensor], target: Tensor, warming: bool) -> Tensor:
        encoders = list(self.world.encoders.values())
        head = self.world.model.head
        z = [e(x) for e, x in zip(encoders, inputs, strict=True)]
        u = [h(f) for h, f in zip(self.heads, z, strict=True)]
        labels, M, B = target.tolist(), self.modalities, len(target)
        loss = sum(ce(logits, target) for logits in u) / M
        optimizer = self.world.optimizer
        optimizer.zero_grad()
        if warming:
            loss.backward()
            for parameter in head.parameters():
                parameter.grad = None
            optimizer.step()
            return loss
        loss = loss + ce(head(torch.cat(z, 1)), target)
        p = [[float(u[m][i].detach().softmax(0)[labels[i]]) for i in range(B)] for m in range(M)]
        alone = [sum(row) / B for row in p]
        weakest = alone.index(min(alone))
        terms, ratios = [], []
        for kept, way in enumerate(ways_of(drawn(M, B, 0, self.draws))):
            predicted = [0.0] * M
            for i, source in enumerate(way):
                own = [labels[j] for j in source]
                c = [p[m][source[m]] / sum(p[k][source[k]] for k in range(M)) for m in range(M)]
                mixed = head(torch.cat([z[m][source[m]] for m in range(M)])[None])[0].log_softmax(0)
                cosines = [
                    float(torch.cosine_similarity(z[m][i], z[m][source[m]], dim=0).detach())
                    for m in range(M)
                    if m != kept
                ]
                s = sum(cosines) / len(cosines)
                weights = [self.alpha if m == weakest else 1.0 for m in range(M)]
                inner = -sum(weights[m] * c[m] * mixed[own[m]] for m in range(M))
                terms.append((1 + (s + 1) / 2) * inner)
                for m in range(M):
                    predicted[m] += float(mixed[own[m]].detach().exp()) / B
            others = [q for m, q in enumerate(predicted) if m != weakest]
            ratios.append(sum(others) / (M - 1) / predicted[weakest])
        self.draws += 1
        loss = loss + self.method.weight * sum(terms) / len(terms)
        loss.backward()
        optimizer.step()
        others = [c for m, c in enumerate(alone) if m != weakest]
        up = sum(ratios) / M > sum(others) / (M - 1) / alone[weakest]
        moved = self.alpha + (self.method.step if up else -self.method.step)
        self.alpha = min(max(1.0, moved), self.method.limit)
        return loss


def shapes(world: World) -> eq.Shapes:
    return eq.Shapes(dict.fromkeys(world.encoders, (8,)), (3,), torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("limit", [math.inf, 1.6])
def test_training_equals_a_plain_loop(modalities: int, seed: int, limit: float) -> None:
    """A step of warm-up and four of training, with a weight that moves."""
    method = MIDAS(weight=1.7, step=0.15, warm_up=1, limit=limit)
    world, other = World(modalities, seed=seed), World(modalities, seed=seed)
    balancer = world.balance(method)
    balancer.make_modules(shapes(world))
    twin = Twin(other, method, modalities)
    method.weak_weight.fill_(1.5)  # so that it counts from the first step on
    twin.alpha = 1.5
    for number in range(5):
        *inputs, target = batch(9, modalities, seed=seed + number)
        found = balancer.loss(world.model(*inputs), target)
        expected = twin.step(inputs, target, warming=number == 0)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        balancer.backward(found)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
        assert method.weak_weight.item() == pytest.approx(twin.alpha, rel=1e-9)
        if number == 0:
            balancer.end_epoch()
    torch.testing.assert_close(weights(world.model), weights(other.model), rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(weights(method.readouts), weights(twin.heads), rtol=1e-8, atol=1e-11)


RELEASED = json.loads(Path(__file__).with_name("midas_released.json").read_text())


class Tanh(nn.Module):
    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.layer = linear(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh()


class Fusion(nn.Module):
    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.layer = linear(weight, bias)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        return self.layer(torch.cat([audio, visual], 1))


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


@pytest.mark.parametrize("run", RELEASED)
def test_training_equals_the_released_code(
    run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of warm-up and four of training, their permutations given (commit d25b225)."""
    of = {
        name: [run["parameters"][f"{module}.{kind}"] for kind in ("weight", "bias")]
        for name, module in {
            "audio": "audio_module.l",
            "visual": "video_module.l",
            "head": "task_net.0",
            "audio_alone": "audio_classifier",
            "visual_alone": "video_classifier",
        }.items()
    }
    encoders = {name: Tanh(*of[name]) for name in ("audio", "visual")}
    model = nn.ModuleDict({**encoders, "head": Fusion(*of["head"])})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    method = MIDAS(warm_up=1)
    balancer = eq.Balancer(method, model, encoders, model["head"], optimizer)
    widths = {"audio": (2,), "visual": (3,)}
    balancer.make_modules(eq.Shapes(widths, (3,), torch.device("cpu"), torch.float64))
    for layer, name in zip(method.readouts.layers, ("audio_alone", "visual_alone"), strict=True):
        layer.load_state_dict(linear(*of[name]).state_dict())
    method.weak_weight.fill_(1.3)
    audio, visual = (torch.tensor(run[name], dtype=torch.float64) for name in ("audio", "video"))
    target = torch.tensor(run["y"])
    released = zip(run["orders"], run["losses"], run["weights"], strict=True)
    for number, (order, loss, weight) in enumerate(released):
        keys = None if order is None else torch.tensor(order).argsort()[None] / 5
        monkeypatch.setattr(method, "_keys", lambda step, keys=keys: keys)
        found = balancer.loss(
            model["head"](encoders["audio"](audio), encoders["visual"](visual)), target
        )
        assert found.item() == pytest.approx(loss, rel=1e-12)
        balancer.backward(found)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        assert method.weak_weight.item() == pytest.approx(weight)
        if number == 0:
            balancer.end_epoch()
    trained = [*model.parameters(), *method.readouts.parameters()]
    norms = [p.norm().item() for p in trained]
    assert norms == pytest.approx(list(run["norms"].values()), rel=1e-12)


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
def test_every_modality_is_kept_once_and_the_others_come_from_permutations(
    modalities: int,
) -> None:
    for draw in range(20):
        keys = drawn(modalities, 6, 1, draw)
        sources = misaligned_sources(torch.ones(6, dtype=torch.bool), keys)
        assert sources.permute(0, 2, 1).tolist() == ways_of(keys)
        assert (sources.sort(dim=2).values == torch.arange(6)).all()
        assert (torch.arange(6) == sources.diagonal(dim1=0, dim2=1).T).all()


def test_partners_are_chosen_evenly() -> None:
    counts = torch.zeros(5, 5)
    for draw in range(1000):
        partner = misaligned_sources(torch.ones(5, dtype=torch.bool), drawn(2, 5, 1, draw))[0, 1]
        counts[torch.arange(5), partner] += 1
    assert ((counts / 1000 - 0.2).abs() < 0.05).all()


def test_incomplete_and_ignored_samples_are_not_put_together() -> None:
    usable = torch.tensor([True, False, True, True])
    for draw in range(50):
        sources = misaligned_sources(usable, drawn(2, 4, 0, draw))
        assert (sources[..., 1] == 1).all()
        assert not (sources[..., usable] == 1).any()
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


def test_a_batch_without_labels_changes_no_weight() -> None:
    world = World()
    method = MIDAS(warm_up=0)
    balancer = world.balance(method)
    *inputs, _ = batch(6)
    found = balancer.loss(world.model(*inputs), torch.full((6,), -100))
    balancer.backward(found)
    balancer.modulate()
    world.optimizer.step()
    assert method.weak_weight == 1
    assert weights(world.model).isfinite().all()


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
    ("confidence", "predicted", "expected"),
    [
        ([0.6, 0.3], [[0.9, 0.1], [0.8, 0.2]], 1.35),  # the weak one is neglected: raised
        ([0.6, 0.3], [[0.5, 0.4], [0.6, 0.3]], 1.25),  # not any more: lowered
        ([0.3, 0.6], [[0.1, 0.9], [0.2, 0.8]], 1.35),  # whichever it is
        ([0.6, 0.3, 0.6], [[0.4, 0.1, 0.4]] * 3, 1.35),
        ([math.nan, 0.3], [[0.9, 0.1], [0.8, 0.2]], 1.3),  # nothing was seen
    ],
)
def test_the_weight_of_the_weak_modality(
    confidence: list[float], predicted: list[list[float]], expected: float
) -> None:
    old, alone, together = (
        torch.tensor(value, dtype=torch.float64) for value in (1.3, confidence, predicted)
    )
    found = weak_modality_weight(old, alone, together, 0.05, 10)
    assert found.item() == pytest.approx(expected)


def test_the_weight_stays_within_its_bounds() -> None:
    confidence, neglected = torch.tensor([0.6, 0.3]), torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    assert weak_modality_weight(torch.tensor(9.9), confidence, neglected, 0.5, 10) == 10
    assert weak_modality_weight(torch.tensor(1.2), confidence, neglected.flip(1), 0.5, 10) == 1


def test_similarity_of_a_feature_of_zeros_is_zero() -> None:
    features = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert replaced_similarity(features, torch.tensor([[1, 0]])).tolist() == [[0, 0]]


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


@pytest.mark.parametrize("limit", [0.5, -math.inf, math.nan])
def test_a_limit_below_one_is_refused(limit: float) -> None:
    with pytest.raises(eq.SetupError, match=r"MIDAS\(limit\): expected a number of 1 or more"):
        MIDAS(limit=limit)


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
