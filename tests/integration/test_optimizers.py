"""What happens around optimizer.step(): updates, several optimizers, closures, forgotten calls."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.worlds import World, batch, train, weights


class Constant(eq.OGM):
    """A coefficient that does not depend on the evidence: 0.25 for audio, 1 for visual."""

    def coefficients(self, evidence: eq.Evidence) -> Tensor:
        return torch.tensor([0.25, 1.0], dtype=torch.float64)


def encoder_weights(world: World, name: str) -> Tensor:
    return torch.cat(
        [p.detach().flatten().clone() for p in world.encoders[name].parameters() if p.ndim > 1]
    )


def displacement(world: World, start: dict[str, Tensor], name: str) -> float:
    return (encoder_weights(world, name) - start[name]).norm().item()


def run(methods: list[eq.Method], adam: bool, steps: int = 20) -> tuple[World, dict[str, float]]:
    world = World(adam=adam, lr=1e-3 if adam else 0.05)
    start = {name: encoder_weights(world, name) for name in world.encoders}
    balancer = world.balance(*methods, track_every=1)
    train(balancer, [batch(seed=seed % 4) for seed in range(steps)])
    return world, {
        **balancer.metrics(),
        **{f"moved/{n}": displacement(world, start, n) for n in world.encoders},
    }


def test_adam_cancels_a_constant_factor_on_gradients_but_not_on_updates() -> None:
    _, plain = run([eq.Joint()], adam=True)
    with pytest.warns(eq.BalanceWarning, match=r"give Constant\(space=\"update\"\)"):
        _, gradient = run([Constant(0.8)], adam=True)
    _, update = run([Constant(0.8, space="update")], adam=True)
    assert gradient["moved/audio"] == pytest.approx(plain["moved/audio"], rel=0.02)
    assert update["moved/audio"] == pytest.approx(0.25 * plain["moved/audio"], rel=0.05)


def test_metrics_tell_the_realised_ratio_of_the_updates() -> None:
    """The first step of Adam has the size of its learning rate, whatever the gradient's is."""
    everything: Any = {"parameters": "all"}
    _, plain = run([eq.Joint()], adam=True, steps=1)
    with pytest.warns(eq.BalanceWarning, match="AdamW does not follow the size"):
        _, gradient = run([Constant(0.8, **everything)], adam=True, steps=1)
    _, update = run([Constant(0.8, space="update", **everything)], adam=True, steps=1)
    expected = plain["update_ratio/audio"]
    assert gradient["update_ratio/audio"] == pytest.approx(expected, rel=1e-3)
    assert update["update_ratio/audio"] == pytest.approx(0.25 * expected, rel=1e-6)


def test_under_sgd_both_spaces_scale_the_update() -> None:
    for space in ("gradient", "update"):
        world = World()
        world.optimizer = torch.optim.SGD(world.model.parameters(), lr=0.05)
        plain = World()
        plain.optimizer = torch.optim.SGD(plain.model.parameters(), lr=0.05)
        start = {name: encoder_weights(world, name) for name in world.encoders}
        train(world.balance(Constant(0.8, space=space)), [batch()])
        train(plain.balance(eq.Joint()), [batch()])
        for name, k in (("audio", 0.25), ("visual", 1.0)):
            ratio = displacement(world, start, name) / displacement(plain, start, name)
            assert ratio == pytest.approx(k, rel=1e-6)


def test_an_update_with_coefficient_one_is_the_optimizers_bit_for_bit() -> None:
    world, plain = World(adam=True), World(adam=True)
    train(world.balance(eq.OGM(0.0, space="update")), [batch(seed=s) for s in range(5)])
    train(plain.balance(eq.Joint()), [batch(seed=s) for s in range(5)])
    assert torch.equal(weights(world.model), weights(plain.model))


def test_noise_on_updates_has_the_standard_deviation_of_the_update() -> None:
    noisy, plain = World(adam=True, lr=1e-3), World(adam=True, lr=1e-3)
    before = copy.deepcopy(dict(noisy.model.named_parameters()))
    train(noisy.balance(eq.GE(space="update")), [batch()])
    train(plain.balance(eq.Joint()), [batch()])
    name = "encoders.audio.2.weight"
    update = dict(plain.model.named_parameters())[name] - before[name]
    noise = dict(noisy.model.named_parameters())[name] - dict(plain.model.named_parameters())[name]
    assert noise.std().item() == pytest.approx(update.std().item(), rel=0.3)


def test_metrics_tell_the_norms_of_gradients_and_updates() -> None:
    world, plain = World(), World()
    balancer = world.balance(eq.OGM(0.8), track_every=2)
    start = {
        name: [p.detach().clone() for p in world.encoders[name].parameters()]
        for name in world.encoders
    }
    *inputs, target = batch()
    nn.functional.cross_entropy(plain.model(*inputs), target).backward()
    train(balancer, [batch()])
    metrics = balancer.metrics()
    for name, encoder in world.encoders.items():
        gradient = torch.cat([p.grad.flatten() for p in plain.encoders[name].parameters()])
        moved = torch.cat(
            [(p - old).flatten() for p, old in zip(encoder.parameters(), start[name], strict=True)]
        )
        assert metrics[f"gradient_norm/{name}"] == pytest.approx(gradient.norm().item())
        assert metrics[f"update_norm/{name}"] == pytest.approx(moved.norm().item())
    ratio = metrics["update_norm/audio"] / metrics["update_norm/visual"]
    assert metrics["update_ratio/audio"] == pytest.approx(ratio)
    assert metrics["update_ratio/visual"] == pytest.approx(1 / ratio)
    train(balancer, [batch(seed=2)])  # not tracked: the second of every two
    assert balancer.metrics()["update_norm/audio"] == metrics["update_norm/audio"]
    train(balancer, [batch(seed=3)])
    assert balancer.metrics()["update_norm/audio"] != metrics["update_norm/audio"]


@pytest.mark.parametrize("space", ["gradient", "update"])
@pytest.mark.parametrize("split", ["by modality", "head apart"])
def test_two_optimizers_are_one(space: str, split: str) -> None:
    together, apart = World(), World()
    encoders = apart.model.encoders
    groups = (
        [
            encoders["audio"].parameters(),
            [*encoders["visual"].parameters(), *apart.model.head.parameters()],
        ]
        if split == "by modality"
        else [encoders.parameters(), apart.model.head.parameters()]
    )
    optimizers = [
        torch.optim.SGD(group, lr=0.1, momentum=0.9, weight_decay=1e-2) for group in groups
    ]
    method = eq.OGMGE(0.8, space=space, smoothing=0.5)
    balancer = eq.Balancer(
        method, apart.model, apart.encoders, apart.model.head, optimizers, track_every=1
    )
    reference = together.balance(eq.OGMGE(0.8, space=space, smoothing=0.5), track_every=1)
    batches = [batch(seed=seed) for seed in range(4)]
    train(reference, batches)
    for *inputs, target in batches:
        balancer.backward(balancer.loss(apart.model(*inputs), target))
        balancer.modulate()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert balancer.steps == 4
    assert torch.equal(weights(together.model), weights(apart.model))
    assert balancer.metrics() == reference.metrics()


def test_a_forgotten_modulate_is_noticed_and_said_once() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))

    def forgetful() -> None:
        *inputs, target = batch()
        balancer.backward(balancer.loss(world.model(*inputs), target))
        world.optimizer.step()
        world.optimizer.zero_grad()

    with pytest.warns(eq.BalanceWarning, match=r"modulate\(\) has not seen. Write"):
        forgetful()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forgetful()
    plain = World()
    plain.model.load_state_dict(world.model.state_dict())
    plain.optimizer.load_state_dict(copy.deepcopy(world.optimizer.state_dict()))
    train(balancer, [batch(seed=3)])  # and its evidence is not added to that of the next step
    train(plain.balance(eq.OGM(0.8)), [batch(seed=3)])
    assert torch.equal(weights(world.model), weights(plain.model))


def closure_of(world: World, balancer: eq.Balancer, modulates: bool = True) -> Any:
    *inputs, target = batch()

    def closure() -> Tensor:
        world.optimizer.zero_grad()
        loss = balancer.loss(world.model(*inputs), target)
        balancer.backward(loss)
        if modulates:
            balancer.modulate()
        return loss

    return closure


@pytest.mark.parametrize("space", ["gradient", "update"])
def test_a_closure_that_modulates_once_is_a_step(space: str) -> None:
    """Lightning's automatic optimisation runs the whole step within one."""
    world, plain = World(), World()
    balancer = world.balance(eq.OGMGE(0.8, space=space), track_every=1)
    reference = plain.balance(eq.OGMGE(0.8, space=space), track_every=1)
    for _ in range(3):
        world.optimizer.step(closure_of(world, balancer))
        train(reference, [batch()])
    assert torch.equal(weights(world.model), weights(plain.model))
    assert balancer.metrics() == reference.metrics()


def test_a_closure_that_does_not_modulate_is_said() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    with pytest.warns(eq.BalanceWarning, match="call it within the closure"):
        world.optimizer.step(closure_of(world, balancer, modulates=False))


class Rereading(torch.optim.SGD):
    """Evaluates its closure twice, as line searches do."""

    def step(self, closure: Any = None) -> Any:
        for _ in range(2):
            loss = closure()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter -= 0.1 * parameter.grad
        return loss


def test_a_closure_that_is_evaluated_twice_is_refused_with_the_reason() -> None:
    world = World()
    world.optimizer = Rereading(world.model.parameters(), lr=0.1)
    balancer = world.balance(eq.OGM(0.8))
    with pytest.raises(eq.StepError, match="evaluated its closure 2 times"):
        world.optimizer.step(closure_of(world, balancer))


def test_the_methods_own_optimizer_is_of_the_users_class_and_follows_its_learning_rate() -> None:
    world = World(adam=True, lr=0.01)
    method = eq.MultiLoss()
    balancer = world.balance(method)
    scheduler = torch.optim.lr_scheduler.StepLR(world.optimizer, 1, gamma=0.0)
    train(balancer, [batch()])
    assert type(balancer.own.optimizer) is torch.optim.AdamW
    moved = copy.deepcopy(method.readouts.state_dict())
    scheduler.step()  # the learning rate is now 0
    train(balancer, [batch(seed=2)])
    assert str(method.readouts.state_dict()) == str(moved)


def test_the_methods_own_modules_learn_as_in_a_model_that_contains_them() -> None:
    world, whole = World(), World()
    method = eq.MultiLoss({"audio": 1.0, "visual": 0.5}, joint=0.7)
    balancer = world.balance(method)
    train(balancer, [batch(0 + 4)])
    twins = copy.deepcopy(method.readouts)
    fresh = World()
    other = eq.MultiLoss()
    reference = fresh.balance(other)
    *inputs, target = batch(4)
    reference.loss(fresh.model(*inputs), target)  # makes the readouts, and trains nothing
    heads = other.readouts
    optimizer = torch.optim.SGD(
        [*whole.model.parameters(), *heads.parameters()], lr=0.1, momentum=0.9, weight_decay=1e-2
    )
    features = [e(x) for e, x in zip(whole.encoders.values(), inputs, strict=True)]
    loss = 0.7 * nn.functional.cross_entropy(whole.model.head(torch.cat(features, 1)), target)
    for weight, head, feature in zip((1.0, 0.5), heads.layers, features, strict=True):
        loss = loss + weight * nn.functional.cross_entropy(head(feature), target)
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(whole.model), rtol=1e-12, atol=1e-15)
    for ours, theirs in zip(twins.parameters(), heads.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


class Peculiar(torch.optim.SGD):
    def __init__(self, parameters: Any, needed: int) -> None:
        super().__init__(parameters, lr=0.1)
        self.twice = 2 * needed


def test_an_optimizer_that_cannot_be_made_again_asks_for_a_factory() -> None:
    world = World()
    world.optimizer = Peculiar(world.model.parameters(), 3)
    balancer = world.balance(eq.MultiLoss())
    with pytest.raises(eq.SetupError, match="own_optimizer="):
        train(balancer, [batch()])
    other = World()
    other.optimizer = Peculiar(other.model.parameters(), 3)
    train(other.balance(eq.MultiLoss(), own_optimizer=lambda p: Peculiar(p, 3)), [batch()])


def test_unimodal_training_is_training_alone() -> None:
    """Together in one model and without the others in a model of its own: the same encoder."""
    joint, single = World(), World()
    train(joint.balance(eq.Ensemble()), [batch(seed=s) for s in range(4)])
    train(single.balance(eq.Unimodal("audio")), [batch(seed=s) for s in range(4)])
    assert torch.equal(encoder_weights(joint, "audio"), encoder_weights(single, "audio"))
    fresh = World()
    assert torch.equal(encoder_weights(single, "visual"), encoder_weights(fresh, "visual"))
    assert torch.equal(single.model.head.weight, fresh.model.head.weight)
