"""Nothing in a step makes the host wait for the device.

The step runs on fake tensors, which have no values: reading one on the host raises at once, as it
would wait for the device on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
)

import equimodal as eq
from equimodal.attach.features import Concatenated
from equimodal.loop.notices import Notices
from support.worlds import World


@pytest.fixture
def without_values(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The warning of evidence that is not finite looks at values on the CPU alone: see below."""
    monkeypatch.setattr(Notices, "unsound", lambda self, *evidence: None)
    with FakeTensorMode():
        yield


def on_device(scores: Any, *methods: eq.Method, adam: bool = False) -> tuple[World, eq.Balancer]:
    world = World(dtype=torch.float32)
    world.optimizer = (
        torch.optim.AdamW(world.model.parameters(), foreach=True)
        if adam
        else torch.optim.SGD(world.model.parameters(), lr=0.1, momentum=0.9)
    )
    features = {"audio": slice(0, 8), "visual": slice(8, 16)}
    balancer = world.balance(*methods, scores=scores, features=features, track_every=1)
    # Found out in the first step alone, as what is chosen below.
    cuts = {"audio": (0, 8), "visual": (8, 8)}
    balancer.attached.layout = Concatenated((0, 0), 1, cuts)
    if scores == "auto":  # chosen in the first step alone
        balancer.scores.chosen = balancer.scores.split
        balancer.scores.split._linear = (world.model.head,)
        balancer.scores.split._order = ("audio", "visual")
    return world, balancer


@pytest.mark.parametrize("scores", [lambda: "auto", eq.Ablation, eq.Probe])
@pytest.mark.parametrize(
    "methods",
    [
        lambda: [eq.OGM(0.8)],
        lambda: [eq.OGMGE(0.8, smoothing=0.5, noise=eq.ElementNoise())],
        lambda: [eq.OGMGE(0.8, space="update")],
        lambda: [eq.OGM(0.8, coefficient=eq.TwoSided(), floor=0.1), eq.MultiLoss()],
        lambda: [eq.Ensemble()],
    ],
)
@pytest.mark.usefixtures("without_values")
def test_a_step_never_waits_for_the_device(methods: Any, scores: Any) -> None:
    for adam in (False, True):
        world, balancer = on_device(scores(), *methods(), adam=adam)
        for _ in range(3):
            a, v = torch.randn(6, 4), torch.randn(6, 5)
            target = torch.randint(3, (6,))
            present = {"visual": torch.rand(6) > 0.5}
            balancer.backward(balancer.loss(world.model(a, v), target, present=present))
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        balancer.detach()


@pytest.mark.usefixtures("without_values")
def test_only_metrics_wait_when_asked() -> None:
    world, balancer = on_device("auto", eq.OGM(0.8))
    a, v = torch.randn(6, 4), torch.randn(6, 5)
    balancer.backward(balancer.loss(world.model(a, v), torch.randint(3, (6,))))
    balancer.modulate()
    with pytest.raises(DataDependentOutputException):
        balancer.metrics()


def test_the_warning_of_evidence_that_is_not_finite_does_not_look_at_a_device() -> None:
    balancer = World().balance(eq.OGM(0.8))
    balancer.notices.unsound(torch.empty(2, device="meta"), "infinite")  # has no values either


def test_norms_of_a_modality_without_a_gradient_stay_on_the_device() -> None:
    """A zero on the host beside norms on the device could not be stacked with them."""
    with torch.device("meta"):
        world = World(dtype=torch.float32)
    balancer = world.balance(eq.OGM(0.8), track_every=1)
    for parameter in world.encoders["audio"].parameters():
        parameter.grad = torch.empty_like(parameter)
    balancer.tracker.gradients()
    norms = [v for n, v in balancer.tracker.latest.items() if n.startswith("gradient_norm")]
    assert [value.device.type for value in norms] == ["meta", "meta"]
