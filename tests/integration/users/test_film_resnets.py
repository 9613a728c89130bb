"""A pair of ResNet-18 with FiLM fusion, as papers' code has it: the fusion returns three tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.nn import ResNet18
from support.users import (
    assert_equals_the_loop_by_hand,
    assert_evidence_moves,
    assert_no_trace,
    changed_lines,
    probabilities,
)

Batches = Sequence[tuple[Tensor, Tensor, Tensor]]


class FiLM(nn.Module):
    """The audio scales and shifts the visual feature."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.condition = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gamma, beta = self.condition(x).chunk(2, dim=1)
        y = gamma * y + beta
        return x, y, self.out(y)


class AudioVisual(nn.Module):
    def __init__(self, width: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.audio_net = ResNet18(in_channels=1, width=width)
        self.visual_net = ResNet18(in_channels=3, width=width)
        self.fusion = FiLM(8 * width, classes)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        _, _, logits = self.fusion(self.audio_net(audio), self.visual_net(visual))
        return logits


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
    for audio, visual, target in batches:
        loss = F.cross_entropy(model(audio, visual), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def balanced(
    model: AudioVisual, optimizer: torch.optim.Optimizer, batches: Batches
) -> Iterator[eq.Balancer]:
    balancer = eq.Balancer(
        eq.OGM(alpha=0.8),
        model,
        encoders={"audio": model.audio_net, "visual": model.visual_net},
        head=model.fusion,
        optimizer=optimizer,
    )
    for audio, visual, target in batches:
        loss = balancer.loss(model(audio, visual), target)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        yield balancer


def make() -> tuple[AudioVisual, Batches]:
    torch.manual_seed(0)
    model, batches = AudioVisual().double(), []
    for _ in range(5):
        target = torch.arange(10) % 5
        audio = torch.randn(10, 1, 33, 24).double() + target.view(-1, 1, 1, 1)
        visual = torch.randn(10, 3, 2, 24, 24).double()  # two frames
        visual += 0.3 * target.view(-1, 1, 1, 1, 1)
        batches.append((audio, visual, target))
    return model, batches


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)


def by_hand(model: Any, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Each modality alone: the fusion, its weights read out, with the other feature at zero."""
    audio, visual, target = batch
    a, v = model.audio_net(audio), model.visual_net(visual)
    weight, bias = model.fusion.condition.weight, model.fusion.condition.bias
    out, width = model.fusion.out, a.shape[1]
    gamma, beta = a @ weight[:width].T + bias[:width], a @ weight[width:].T + bias[width:]
    loss = F.cross_entropy((gamma * v + beta) @ out.weight.T + out.bias, target)
    audio_alone = beta @ out.weight.T + out.bias  # gamma * 0 + beta
    visual_alone = (bias[:width] * v + bias[width:]) @ out.weight.T + out.bias
    return loss, {
        "audio": probabilities(audio_alone, target),
        "visual": probabilities(visual_alone, target),
    }


def test_at_most_five_lines_change() -> None:
    assert changed_lines(plain, balanced) <= 5


def test_equals_the_loop_by_hand_and_evidence_moves() -> None:
    model, batches = make()
    encoders = {"audio": ["audio_net"], "visual": ["visual_net"]}
    metrics = assert_equals_the_loop_by_hand(model, sgd, batches, balanced, by_hand, encoders)
    assert_evidence_moves(metrics, ["audio", "visual"])


def test_check_and_no_trace() -> None:
    model, batches = make()
    keys = list(model.state_dict())
    balancer = next(iter(balanced(model, sgd(model), batches)))
    found = str(balancer.check(batches[0]))
    for part in ["audio   ResNet18", "feature (10, 32)", "head    FiLM", "logits  (10, 5)"]:
        assert part in found, found
    assert "audio from argument 0, visual from argument 1" in found
    assert "Ablation(fill='zero')" in found
    unimodal = balancer.unimodal_logits(*batches[0][:2])
    assert {name: u.shape for name, u in unimodal.items()} == {
        "audio": (10, 5),
        "visual": (10, 5),
    }
    assert_no_trace(model, balancer, keys)
