"""Methods that declare what they do not work under are refused at the first step under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.method import Capabilities
from equimodal.methods.data.data_remixing import DataRemixing
from equimodal.methods.data.sample_valuation import SampleValuation
from support.worlds import World, batch, train


class Precise(eq.Method):
    """Also before its window, in which it would be too late to tell."""

    name = "precise"
    capabilities = Capabilities(autocast=False)
    window = (5, 9)


class Eager(eq.Method):
    name = "eager"
    capabilities = Capabilities(compiled=False)
    window = (5, 9)


def started(*methods: eq.Method) -> tuple[World, eq.Balancer]:
    """A step has shown where the features are, as a compiled model needs."""
    torch._dynamo.reset()
    world = World(dtype=torch.float32)
    loader = DataLoader(TensorDataset(*batch(dtype=torch.float32)), 8)
    balancer = world.balance(*methods, train_loader=loader)
    train(balancer, [batch(dtype=torch.float32)])
    return world, balancer


def autocast_loss(world: World, balancer: eq.Balancer) -> Tensor:
    *inputs, target = batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = world.model(*inputs)
    return balancer.loss(logits, target)


def compiled_loss(world: World, balancer: eq.Balancer) -> Tensor:
    *inputs, target = batch(dtype=torch.float32)
    model: Any = torch.compile(world.model, backend="eager")
    return balancer.loss(model(*inputs), target)


def test_autocast_is_refused_where_a_method_does_not_work_under_it() -> None:
    world, balancer = started(eq.OGM(0.8), Precise())
    with pytest.raises(eq.StepError, match=r"Precise does not work under autocast.*leave it out"):
        autocast_loss(world, balancer)


def test_loss_scaling_is_refused_where_a_method_does_not_work_under_it() -> None:
    world, balancer = started(Precise())
    *inputs, target = batch(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu")
    balancer.backward(scaler.scale(balancer.loss(world.model(*inputs), target)))
    with pytest.raises(eq.StepError, match=r"Precise does not work under .* loss scaling"):
        balancer.modulate(scaler)
    balancer.modulate(torch.amp.GradScaler("cpu", enabled=False))


@pytest.mark.filterwarnings("ignore:a method decides which samples")
@pytest.mark.parametrize(
    "make", [Eager, lambda: SampleValuation(warm_up=5), lambda: DataRemixing(warm_up=5)]
)
def test_a_compiled_head_is_refused_where_a_method_needs_it_eager(
    make: Callable[[], eq.Method],
) -> None:
    """At the first step, and not when it drops something after the warm-up."""
    world, balancer = started(make())
    kind = type(balancer.methods.methods[0]).__name__
    with pytest.raises(eq.StepError, match=rf"{kind} does not work with a compiled head.*encoders"):
        compiled_loss(world, balancer)


def test_encoders_may_be_compiled_where_the_head_is_not() -> None:
    world, balancer = started(Eager())
    for encoder in world.encoders.values():
        encoder.compile(backend="eager")
    train(balancer, [batch(dtype=torch.float32)])


def test_methods_that_work_under_both_are_not_refused() -> None:
    world, balancer = started(Precise(), eq.OGM(0.8))
    compiled_loss(world, balancer)
    world, balancer = started(Eager(), eq.OGM(0.8))
    autocast_loss(world, balancer)
