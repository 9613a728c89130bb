"""A table and an image: regression with a squared error, read as scores by a temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from support.users import (
    assert_equals_the_loop_by_hand,
    assert_evidence_moves,
    assert_no_trace,
    changed_lines,
)

Batches = Sequence[tuple[Tensor, Tensor, Tensor]]
TEMPERATURE = 0.5


class TableAndImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.regressor = nn.Sequential(nn.Linear(8 + 24, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, table: Tensor, image: Tensor) -> Tensor:
        joined = torch.cat([self.cnn(image), self.mlp(table)], dim=1)  # the image first
        return self.regressor(joined).squeeze(1)


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
    for table, image, price in batches:
        loss = F.mse_loss(model(table, image), price)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def balanced(
    model: TableAndImage, optimizer: torch.optim.Optimizer, batches: Batches
) -> Iterator[eq.Balancer]:
    balancer = eq.Balancer(
        eq.OGM(alpha=0.8),
        model,
        encoders={"table": model.mlp, "image": model.cnn},
        head=model.regressor,
        optimizer=optimizer,
        criterion=F.mse_loss,
        scores=eq.Ablation(temperature=TEMPERATURE),
    )
    for table, image, price in batches:
        loss = balancer.loss(model(table, image), price)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        yield balancer


def by_hand(model: Any, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
    table, image, price = batch
    z_table, z_image = model.mlp(table), model.cnn(image)
    loss = ((model.regressor(torch.cat([z_image, z_table], 1))[:, 0] - price) ** 2).mean()
    alone = {
        "table": model.regressor(torch.cat([0 * z_image, z_table], 1))[:, 0],
        "image": model.regressor(torch.cat([z_image, 0 * z_table], 1))[:, 0],
    }
    return loss, {
        name: sum(
            math.exp(-((u - y) ** 2) / TEMPERATURE)
            for u, y in zip(guess.tolist(), price.tolist(), strict=True)
        )
        for name, guess in alone.items()
    }


def make() -> tuple[TableAndImage, Batches]:
    torch.manual_seed(0)
    model, batches = TableAndImage().double(), []
    for _ in range(8):
        table, image = torch.randn(16, 6).double(), torch.randn(16, 1, 9, 9).double()
        batches.append((table, image, table[:, 0] + 0.3 * image.mean((1, 2, 3))))
    return model, batches


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05)


def test_at_most_five_lines_change() -> None:
    assert changed_lines(plain, balanced) <= 5


def test_equals_the_loop_by_hand_and_evidence_moves() -> None:
    model, batches = make()
    encoders = {"table": ["mlp"], "image": ["cnn"]}
    metrics = assert_equals_the_loop_by_hand(model, sgd, batches, balanced, by_hand, encoders)
    assert_evidence_moves(metrics, ["table", "image"])


def test_check_and_no_trace() -> None:
    model, batches = make()
    keys = list(model.state_dict())
    balancer = next(iter(balanced(model, sgd(model), batches)))
    found = str(balancer.check(batches[0]))
    for part in ["feature (16, 8)", "feature (16, 24)", "image 0:24, table 24:32 of argument 0"]:
        assert part in found, found
    assert_no_trace(model, balancer, keys)
