"""Tensor parallelism by itself: ranks hold slices of weights and the same batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import equimodal as eq
from equimodal.testing import batch, spawn
from support.worlds import train

METHODS: dict[str, tuple[Callable[[], eq.Method], bool]] = {
    "ogm": (lambda: eq.OGM(0.8), True),
    "ogm, updates": (lambda: eq.OGM(0.8, space="update"), True),
    "ogm-ge": (lambda: eq.OGMGE(0.8), False),
    "ogm-ge, elements": (lambda: eq.OGMGE(0.8, noise=eq.ElementNoise()), False),
}
BATCHES = [batch(24, seed=seed, dtype=torch.float32) for seed in range(3)]


class Wide(nn.Module):
    """Encoders of two layers, so that a slice of columns meets one of rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
        self.visual = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6))
        self.head = nn.Linear(12, 3)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        return self.head(torch.cat([self.audio(audio), self.visual(visual)], dim=1))  # type: ignore[no-any-return]


def trained(method: eq.Method, plan: Any = None) -> list[Tensor]:
    model = Wide()
    if plan is not None:
        parallelize_module(model, init_device_mesh("cpu", (2,)), plan)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "visual": model.visual}
    balancer = eq.Balancer(method, model, encoders, model.head, optimizer)
    train(balancer, BATCHES)
    return [
        p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()
    ]


def on_ranks(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (make, rows) in METHODS.items():
        plan: dict[str, Any] = {"audio.0": ColwiseParallel(output_layouts=Replicate())}
        if rows:
            plan = {"audio.0": ColwiseParallel(), "audio.2": RowwiseParallel()}
        found[name] = trained(make(), plan)
    try:
        trained(eq.OGMGE(0.8), {"audio.0": ColwiseParallel(), "audio.2": RowwiseParallel()})
    except eq.SetupError as error:
        found["refused"] = str(error)
    return found


@pytest.fixture(scope="module")
def pair() -> Any:
    return spawn(on_ranks)


@pytest.mark.parametrize("name", METHODS)
def test_slices_of_weights_move_as_the_whole(pair: Any, name: str) -> None:
    truth = trained(METHODS[name][0]())
    for each in pair:
        for found, expected in zip(each[name], truth, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_noise_for_slices_of_rows_is_refused_by_name(pair: Any) -> None:
    for each in pair:
        assert "audio.2.weight is sharded along dimension 1" in each["refused"]
        assert "RowwiseParallel" in each["refused"]
