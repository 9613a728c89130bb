"""MMPareto at the features, against a loop with a gradient for each loss and feature."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import equimodal as eq
from equimodal import testing
from equimodal.methods.gradient.mmpareto import MMPareto
from equimodal.nn import MLP, Concat, Multimodal
from support.worlds import World, batch, train, weights


def at_features() -> eq.Method:
    return MMPareto(at="features")


def weight_of_joint(g: Tensor, u: Tensor) -> float:
    """Of two gradients, as the paper and its solver for two tasks have it."""
    both, first, second = ((a * b).sum().item() for a, b in ((g, u), (g, g), (u, u)))
    if both > 0:
        return 0.5
    if both >= first:
        return 0.999
    if both >= second:
        return 0.001
    return (second - both) / (first + second - 2 * both)


class Apart(nn.Module):
    """The head is given the features one by one, where `Net` joins them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoders = nn.ModuleDict(
            {n: MLP(4 + i, hidden=(7,), features=8) for i, n in enumerate(testing.NAMES[:2])}
        )
        self.head = Concat(dict.fromkeys(self.encoders, 8), 3)

    def forward(self, *inputs: Tensor) -> Any:
        return self.head(*(e(x) for e, x in zip(self.encoders.values(), inputs, strict=True)))


def balanced(model: Any, seed: int, **settings: Any) -> tuple[eq.Balancer, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    method = MMPareto(gamma=1.3, at="features", **settings)
    balancer = eq.Balancer(
        method, model, dict(model.encoders.items()), model.head, optimizer, seed=seed
    )
    shapes = eq.Shapes(
        dict.fromkeys(model.encoders, (8,)), (3,), torch.device("cpu"), torch.float64
    )
    balancer.make_modules(shapes)
    return balancer, method


def hand_written(model: Any, classifiers: Any, batches: list[Any], joined: bool) -> list[float]:
    """Every gradient on its own; encoders get the combination at their feature."""
    shared = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    own = torch.optim.SGD(classifiers.parameters(), lr=0.1, momentum=0.9)
    history = []
    for *inputs, target in batches:
        encoders = list(model.encoders.values())
        z = [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]
        logits = model.head(torch.cat(z, 1)) if joined else model.head(*z)
        joint = nn.functional.cross_entropy(logits, target)
        losses = [
            nn.functional.cross_entropy(c(f), target) for c, f in zip(classifiers, z, strict=True)
        ]
        for optimizer in (shared, own):
            optimizer.zero_grad()
        (joint + sum(losses)).backward(retain_graph=True)
        for encoder, feature, loss in zip(encoders, z, losses, strict=True):
            (g,) = torch.autograd.grad(joint, feature, retain_graph=True)
            (u,) = torch.autograd.grad(loss, feature, retain_graph=True)
            a = weight_of_joint(g, u)
            history.append(a)
            h = 2 * a * g + 2 * (1 - a) * u
            h = 1.3 * h * max(1.0, float((g + u).norm() / h.norm()))
            parameters = list(encoder.parameters())
            of = torch.autograd.grad(feature, parameters, h, retain_graph=True)
            for parameter, gradient in zip(parameters, of, strict=True):
                parameter.grad = gradient
        shared.step()
        own.step()
    return history


@pytest.mark.parametrize("joined", [True, False])
def test_equals_the_hand_written_loop(joined: bool) -> None:
    """Where the head is given the features side by side, and one by one; both rules are at work."""
    batches = [batch(12, seed=seed) for seed in range(8)]
    model: Any = World(seed=3).model if joined else Apart(3).double()
    twin = copy.deepcopy(model)
    balancer, method = balanced(model, 3)
    classifiers = copy.deepcopy(method.readouts.layers)
    history = hand_written(twin, classifiers, batches, joined)
    assert 0.5 in history
    assert any(a != 0.5 for a in history)
    train(balancer, batches)
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        weights(method.readouts.layers), weights(classifiers), rtol=1e-9, atol=1e-12
    )


def test_no_pass_is_added() -> None:
    names = ["audio", "visual"]

    def cost(method: eq.Method) -> int:
        torch.manual_seed(0)
        encoders = {name: MLP(16, hidden=(16, 16), features=8) for name in names}
        model = Multimodal(encoders, Concat(dict.fromkeys(names, 8), 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        balancer = eq.Balancer(method, model, encoders, model.head, optimizer)
        data = (*torch.randn(2, 12, 16), torch.arange(12) % 3)
        train(balancer, [data])
        with FlopCounterMode(display=False) as counter:
            train(balancer, [data])
        return int(counter.get_total_flops())

    assert cost(at_features()) == cost(eq.Joint()) + 2 * 3 * (2 * 12 * 8 * 3)  # the classifiers
    assert cost(MMPareto()) > 1.3 * cost(at_features())


def test_a_scaled_loss_changes_nothing_but_the_scale() -> None:
    found = []
    for scale in (1.0, 1024.0):
        world = World()
        balancer = world.balance(at_features())
        *inputs, target = batch(12)
        balancer.backward(balancer.loss(world.model(*inputs), target) * scale)
        gradients = [p.grad for p in world.model.parameters() if p.grad is not None]
        found.append(torch.cat([g.flatten() for g in gradients]) / scale)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-15)


def test_frozen_features_are_left_alone() -> None:
    world = World()
    world.encoders["audio"].requires_grad_(False)
    before = weights(world.encoders["audio"])
    train(world.balance(at_features()), [batch(12)])
    assert torch.equal(weights(world.encoders["audio"]), before)


def test_features_that_the_loss_does_not_go_through_are_refused() -> None:
    class Scaled(nn.Module):
        """What the head is given was computed from the join."""

        def __init__(self) -> None:
            super().__init__()
            self.encoders = nn.ModuleDict({"audio": nn.Linear(4, 8), "visual": nn.Linear(5, 8)})
            self.head = nn.Linear(16, 3)

        def forward(self, audio: Tensor, visual: Tensor) -> Any:
            pairs = zip(self.encoders.values(), (audio, visual), strict=True)
            return self.head(torch.cat([encoder(x) for encoder, x in pairs], dim=1).tanh())

    model = Scaled().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = dict(model.encoders.items())
    balancer = eq.Balancer(at_features(), model, encoders, model.head, optimizer)
    *inputs, target = batch(12)
    with pytest.raises(eq.StepError, match=r"feature of audio .* at='parameters'"):
        balancer.loss(model(*inputs), target)


def test_another_place_is_refused() -> None:
    wrong: Any = "feature"
    with pytest.raises(eq.SetupError, match=r"MMPareto\(at\).*'feature'.*features"):
        MMPareto(at=wrong)


@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
def test_it_conforms(check: Any) -> None:
    check(at_features)
