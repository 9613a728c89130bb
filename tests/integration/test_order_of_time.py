"""Classes that differ in the order of time alone: averages are at chance, four bins are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from equimodal.data import Arrays, Splits, load
from equimodal.training import Encoder, model_for

ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0))
PITCHES = (0.3, 0.8, 1.5)


def bursts(count: int, draws: torch.Generator) -> Arrays:
    """The same three bursts in each sample, in one of four orders, in noise."""
    target = torch.randint(4, (count,), generator=draws)
    signals = {}
    for name, noise in (("a", 0.6), ("b", 1.2)):
        x = noise * torch.randn(count, 3, 96, generator=draws)
        for sample, label in zip(x, target.tolist(), strict=True):
            for place, burst in enumerate(ORDERS[label]):
                start = 4 + place * 30 + int(torch.randint(8, (1,), generator=draws))
                phase = 6.28 * torch.rand(1, generator=draws)
                sample[:, start : start + 24] += torch.sin(
                    PITCHES[burst] * torch.arange(24.0) + phase
                )
        signals[name] = x
    return Arrays(signals, target)


@pytest.mark.parametrize(("encoder", "learned"), [("small", False), ("ordered", True)])
def test_ordered_encoders_learn_it(encoder: Encoder, learned: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    train, test = bursts(600, draws), bursts(300, draws)
    splits = Splits(train, test, test, ("0", "1", "2", "3"), load("watch").card)
    model = model_for(splits, encoder=encoder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(6):
        for *inputs, target in train.loader(64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(*inputs), target).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = (model(*test.features.values()).argmax(1) == test.target).float().mean()
    assert right > 0.8 if learned else right < 0.5
