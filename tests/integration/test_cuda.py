"""On a GPU: the same step as on the CPU, and nothing waits for the device."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import equimodal as eq
from support.worlds import World, batch, train, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU with CUDA here")

METHODS: dict[str, Callable[[], list[eq.Method]]] = {
    "ogm": lambda: [eq.OGM(0.8)],
    "ogm, on updates": lambda: [eq.OGM(0.8, space="update", smoothing=0.5)],
    "multi-loss": lambda: [eq.MultiLoss()],
    "ensemble": lambda: [eq.Ensemble()],
    "ogm-ge": lambda: [eq.OGMGE(0.8)],
    "ogm-ge, elements": lambda: [eq.OGMGE(0.8, noise=eq.ElementNoise())],
}
WITHOUT_NOISE = [name for name in METHODS if "ge" not in name]


def on_gpu(whole: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.cuda() for tensor in whole)


def world(like: World | None = None) -> World:
    made = World()
    made.model.cuda()
    if like is not None:
        made.model.load_state_dict(like.model.state_dict())
    return made


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_equals_the_cpu(name: str) -> None:
    """Noise is drawn by the device's own generator: it is the same on every GPU, not on a CPU."""
    host = World()
    device = world(host)
    batches = [batch(seed=seed) for seed in range(4)]
    train(host.balance(*METHODS[name]()), batches)
    train(device.balance(*METHODS[name]()), [on_gpu(each) for each in batches])
    torch.testing.assert_close(
        weights(device.model).cpu(), weights(host.model), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_step_never_waits(name: str) -> None:
    device = world()
    balancer = device.balance(*METHODS[name]())
    batches = [on_gpu(batch(seed=seed)) for seed in range(3)]
    train(balancer, batches[:1])  # the first step finds out where the features are
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(balancer, batches[1:])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", METHODS)
def test_resumed_equals_uninterrupted(name: str) -> None:
    batches = [on_gpu(batch(seed=seed)) for seed in range(4)]
    straight = world()
    train(straight.balance(*METHODS[name]()), batches)
    first = world()
    balancer = first.balance(*METHODS[name]())
    train(balancer, batches[:2])
    saved = copy.deepcopy(balancer.state_dict())
    second = world(first)
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    resumed = second.balance(*METHODS[name]())
    resumed.load_state_dict(saved)
    train(resumed, batches[2:])
    assert torch.equal(weights(second.model), weights(straight.model))


def test_loss_scaling_in_half_precision() -> None:
    device = World(dtype=torch.float32)
    device.model.cuda()
    balancer = device.balance(eq.OGMGE(0.8))
    scaler = torch.amp.GradScaler("cuda")
    before = weights(device.model)
    for seed in range(5):
        *inputs, target = on_gpu(batch(seed=seed, dtype=torch.float32))
        with torch.autocast("cuda", torch.float16):
            loss = balancer.loss(device.model(*inputs), target)
        balancer.backward(scaler.scale(loss))
        balancer.modulate(scaler)
        scaler.step(device.optimizer)
        scaler.update()
        device.optimizer.zero_grad()
    assert weights(device.model).isfinite().all()
    assert not torch.equal(weights(device.model), before)


def test_a_model_moved_after_attaching() -> None:
    host, moved = World(), World()
    balancer = moved.balance(eq.OGM(0.8))
    moved.model.cuda()
    train(host.balance(eq.OGM(0.8)), [batch()])
    train(balancer, [on_gpu(batch())])
    torch.testing.assert_close(
        weights(moved.model).cpu(), weights(host.model), rtol=1e-8, atol=1e-9
    )
