"""The whole training step under the compiler: no graph break is the balancer's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.worlds import World, batch, train, weights

METHODS: dict[str, Callable[[], eq.Method]] = {
    "joint": eq.Joint,
    "ogm": lambda: eq.OGM(0.8),
    "ogm, smoothed": lambda: eq.OGM(0.8, smoothing=0.5),
    "ogm-ge": lambda: eq.OGMGE(0.8),
    "ogm-ge, elements": lambda: eq.OGMGE(0.8, noise=eq.ElementNoise()),
    "multi-loss": eq.MultiLoss,
}
PACKAGE = str(Path(eq.__file__).parent)


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def balanced_step(world: World, method: eq.Method) -> tuple[eq.Balancer, Callable[..., Tensor]]:
    balancer = world.balance(method)

    def step(audio: Tensor, visual: Tensor, target: Tensor) -> Tensor:
        loss = balancer.loss(world.model(audio, visual), target)
        value = loss.detach()
        balancer.backward(loss)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
        return value

    return balancer, step


@pytest.mark.parametrize("name", METHODS)
def test_forward_and_loss_are_one_graph_and_so_is_modulate(name: str) -> None:
    """`fullgraph` makes any graph break an error."""
    plain, world = World(), World()
    _, eager = balanced_step(plain, METHODS[name]())
    balancer, first = balanced_step(world, METHODS[name]())

    def loss_of(audio: Tensor, visual: Tensor, target: Tensor) -> Tensor:
        return balancer.loss(world.model(audio, visual), target)

    loss_of = torch.compile(loss_of, backend="aot_eager", fullgraph=True)
    modulate: Any = torch.compile(balancer.modulate, backend="aot_eager", fullgraph=True)
    for seed in range(4):
        eager(*batch(seed=seed))
        if seed == 0:  # where the features are is found in an eager step, or by check
            first(*batch(seed=seed))
            continue
        balancer.backward(loss_of(*batch(seed=seed)))
        modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["ogm", "ogm-ge"])
def test_breaks_of_the_whole_step_are_in_backward_and_the_optimizer(name: str) -> None:
    """By the compiler's own account: the code that breaks is torch's, as in the plain step."""
    plain, world = World(), World()
    criterion = nn.CrossEntropyLoss()

    def plain_step(audio: Tensor, visual: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = criterion(plain.model(audio, visual), target)
        value = loss.detach()
        loss.backward()
        plain.optimizer.step()
        plain.optimizer.zero_grad()
        return value

    balancer, step = balanced_step(world, METHODS[name]())
    step(*batch())
    balancer.detach()  # of the hooks that explain would run into twice
    balancer, step = balanced_step(world, METHODS[name]())
    step(*batch())
    plain_step(*batch())
    explain: Any = torch._dynamo.explain
    breaks = explain(step)(*batch()).break_reasons
    assert len(explain(plain_step)(*batch()).break_reasons) > 0  # backward and optimizer
    for reason in breaks:
        frame = reason.user_stack[-1]
        assert not frame.filename.startswith(PACKAGE), (
            f"{frame.filename}:{frame.lineno}: {reason.reason}"
        )


@pytest.mark.parametrize("name", METHODS)
def test_a_compiled_step_trains_as_the_eager_one(name: str) -> None:
    plain, world = World(), World()
    _, eager = balanced_step(plain, METHODS[name]())
    balancer, step = balanced_step(world, METHODS[name]())
    compiled = torch.compile(step, backend="aot_eager")
    for seed in range(5):
        eager(*batch(seed=seed))
        # the first step finds out where features are, and makes the methods' own modules
        (compiled if seed else step)(*batch(seed=seed))
    assert balancer.steps == 5
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-12, atol=1e-12)


def test_a_step_compiled_to_machine_code_trains_as_the_eager_one() -> None:
    plain, world = World(dtype=torch.float32), World(dtype=torch.float32)
    _, eager = balanced_step(plain, eq.OGMGE(0.8))
    balancer, step = balanced_step(world, eq.OGMGE(0.8))
    balancer.check(batch(dtype=torch.float32))
    compiled = torch.compile(step)
    for seed in range(3):
        eager(*batch(seed=seed, dtype=torch.float32))
        compiled(*batch(seed=seed, dtype=torch.float32))
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-5, atol=1e-6)


def test_micro_batches_of_a_compiled_loss_give_the_step_of_the_large_batch() -> None:
    plain, world = World(), World()
    _, eager = balanced_step(plain, eq.OGMGE(0.8))
    balancer = world.balance(eq.OGMGE(0.8))
    balancer.check(batch())

    @torch.compile(backend="aot_eager", fullgraph=True)
    def loss_of(audio: Tensor, visual: Tensor, target: Tensor) -> Tensor:
        return balancer.loss(world.model(audio, visual), target)

    for seed in range(3):
        eager(*batch(seed=seed))
        for part in zip(*(t.chunk(4) for t in batch(seed=seed)), strict=True):
            balancer.backward(loss_of(*part) / 4)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-9, atol=1e-10)


def test_of_compiled_losses_only_the_latest_can_be_backpropagated() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    balancer.check(batch())

    @torch.compile(backend="aot_eager", fullgraph=True)
    def loss_of(audio: Tensor, visual: Tensor, target: Tensor) -> Tensor:
        return balancer.loss(world.model(audio, visual), target)

    older, latest = loss_of(*batch(seed=1)), loss_of(*batch(seed=2))
    with pytest.raises(eq.StepError, match="Of compiled losses only the latest"):
        balancer.backward(older)
    balancer.backward(latest)


def test_an_encoder_compiled_in_its_place_is_not_blamed_for_another_mistake() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    encoders = world.model.encoders
    encoders["audio"] = torch.compile(encoders["audio"], backend="eager")
    train(balancer, [batch()])
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"present\['audio'\]: expected bool of shape"):
        balancer.loss(world.model(*inputs), target, present={"audio": target})
