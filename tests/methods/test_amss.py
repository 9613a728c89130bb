"""AMSS against a loop written from the equations, its draws, and numbers of the released code."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.amss import drawn_filters, label_information, updated_shares
from equimodal.methods.gradient.amss import AMSS, InverseProbability
from equimodal.noise import mix
from support import slow
from support.worlds import World, batch, train, weights


def entropy(p: Any) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def slow_shares(
    losses: list[float], entropies: list[float], labels: list[int], classes: int
) -> list[float]:
    p = np.array([labels.count(c) / len(labels) for c in range(classes)])
    information = -sum(a * math.log(b) for a, b in zip(p, slow.softmax(p), strict=True))
    numerators = [information - loss + 0.5 for loss in losses]
    if min(numerators) <= 0:
        return [0.5] * len(losses)
    ratios = [n / h for n, h in zip(numerators, entropies, strict=True)]
    total = sum(math.exp(r / 0.2) for r in ratios)
    return [min(max(1 - math.exp(r / 0.2) / total, 0.1), 0.9) for r in ratios]


def by_hand(world: World, batches: list[tuple[Tensor, ...]], plus: bool) -> list[list[float]]:
    history = []
    for number, (*inputs, target) in enumerate(batches):
        features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        loss = nn.functional.cross_entropy(world.model.head(torch.cat(features, 1)), target)
        world.optimizer.zero_grad()
        loss.backward()
        losses, entropies = [], []
        for m, z in enumerate(features):
            part = world.model.head.weight[:, 8 * m : 8 * m + 8]
            u = (z @ part.T + world.model.head.bias / len(features)).detach().numpy()
            p = [slow.softmax(row)[y] for row, y in zip(u, target.tolist(), strict=True)]
            losses.append(-sum(map(math.log, p)) / len(p))
            rows = [entropy(slow.softmax(row)) for row in z.detach().numpy()]
            entropies.append(sum(rows) / len(rows))
        shares = slow_shares(losses, entropies, target.tolist(), world.classes)
        history.append(shares)
        for (name, encoder), share in zip(world.encoders.items(), shares, strict=True):
            for path, p in encoder.named_parameters():
                if p.ndim < 2:
                    continue
                g = p.grad
                assert g is not None
                norms = [float((row**2).sum()) for row in g]
                full = f"encoders.{name}.{path}"
                seeded = torch.Generator().manual_seed(mix(0, 3, number, zlib.crc32(full.encode())))
                u = torch.rand(len(norms), generator=seeded).tolist()
                keys = [math.log(n) - math.log(-math.log(x)) for n, x in zip(norms, u, strict=True)]
                many = math.ceil(round(share * len(norms), 4))
                kept = sorted(range(len(norms)), key=lambda j: -keys[j])[:many]
                for j in range(len(norms)):
                    factor = 1 / (norms[j] / sum(norms) + 1 / len(norms)) if plus else 1.0
                    g[j] *= factor if j in kept else 0.0
        world.optimizer.step()
    return history


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("plus", [False, True])
def test_equals_the_hand_written_loop(modalities: int, seed: int, plus: bool) -> None:
    batches = [batch(9, modalities, seed=10 * seed + i) for i in range(5)]
    ours, theirs = World(modalities, seed=seed, lr=0.02), World(modalities, seed=seed, lr=0.02)
    train(ours.balance(AMSS(scaling=InverseProbability() if plus else None)), batches)
    history = by_hand(theirs, batches, plus)
    assert len({round(share, 3) for shares in history for share in shares}) > 3
    torch.testing.assert_close(weights(ours.model), weights(theirs.model), rtol=1e-8, atol=1e-10)


def test_filters_are_drawn_in_proportion_and_without_replacement() -> None:
    """The probability of a pair is that of drawing one after the other."""
    q = torch.tensor([0.5, 0.3, 0.2])
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(20_000, 3, generator=generator)
    kept = torch.stack([drawn_filters(q, torch.tensor(0.6), each) for each in numbers])
    assert (kept.sum(dim=1) == 2).all()
    left_out = (~kept).double().mean(dim=0)
    expected = [
        sum(float(q[a] * q[b] / (1 - q[a])) for a, b in ((i, j), (j, i)))
        for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    torch.testing.assert_close(left_out, torch.tensor(expected).double(), atol=0.015, rtol=0)


@pytest.mark.parametrize(("share", "many"), [(0.1, 1), (0.5, 5), (0.9, 9), (0.41, 5), (1.0, 10)])
def test_the_number_of_filters_is_rounded_up(share: float, many: int) -> None:
    kept = drawn_filters(torch.ones(10), torch.tensor(share), torch.rand(10))
    assert kept.sum() == many


def test_filters_without_a_gradient_come_last() -> None:
    norms = torch.tensor([0.0, 1.0, 0.0, 2.0])
    assert drawn_filters(norms, torch.tensor(0.5), torch.rand(4)).tolist() == [False, True] * 2


def test_an_absent_modality_leaves_the_others_to_be_compared() -> None:
    two = updated_shares(torch.tensor([0.4, 0.7]), torch.tensor([1.0, 1.2]), torch.tensor(1.0))
    three = updated_shares(
        torch.tensor([0.4, math.nan, 0.7]), torch.tensor([1.0, 0.0, 1.2]), torch.tensor(1.0)
    )
    torch.testing.assert_close(three[[0, 2]], two)
    assert three[1] == 0.5
    alone = updated_shares(torch.tensor([0.4, math.nan]), torch.ones(2), torch.tensor(1.0))
    assert alone.tolist() == [0.5, 0.5]


def test_micro_batches_are_the_large_batch() -> None:
    large, small = World(), World()
    batches = [batch(12, seed=i) for i in range(3)]
    train(large.balance(AMSS()), batches)
    train(small.balance(AMSS()), batches, micro=3)
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-9, atol=1e-12)


RELEASED = (  # logits and features of audio and video, then what the released code makes of them
    [[2.16, 0.27, 0.06], [0.62, -0.45, 1.33], [-1.52, 1.88, -1.03], [-0.56, -0.89, 1.44],
     [1.3, -0.97, 0.42]],
    [[0.77, -0.42, -0.51], [-1.57, -0.12, 4.09], [-1.83, 2.1, -1.28], [0.33, -0.48, 1.88],
     [3.03, 0.41, -0.99]],
    [[-0.99, -0.3, 0.64, 0.1], [1.18, 0.61, -0.9, 1.91], [1.12, 0.06, -0.6, -1.17],
     [-0.88, 0.47, -0.5, -0.16], [1.21, 0.82, 1.67, -0.12]],
    [[-3.06, -2.13, -3.57, 0.39], [3.18, -8.52, 3.51, 1.74], [8.82, 3.24, 3.06, -3.24],
     [-3.66, 3.93, 3.33, -1.32], [-8.46, -1.98, -0.6, 1.92]],
)  # fmt: skip


def test_numbers_of_the_released_code() -> None:
    audio, video, *features = (torch.tensor(each, dtype=torch.float64) for each in RELEASED)
    target = torch.tensor([0, 2, 1, 2, 0])
    losses = torch.stack([nn.functional.cross_entropy(u, target) for u in (audio, video)])
    entropies = torch.stack([-(z.softmax(1) * z.log_softmax(1)).sum(1).mean() for z in features])
    information = label_information(torch.tensor([2.0, 1.0, 2.0]).double())
    assert information.item() == pytest.approx(1.0762866960692137, rel=1e-9)
    ratios = (information - losses + 0.5) / entropies
    assert ratios.tolist() == pytest.approx([1.0983620392229514, 2.846012752841329], rel=1e-9)
    shares = updated_shares(losses, entropies, information)
    assert shares.tolist() == pytest.approx([0.9, 0.1], rel=1e-9)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AMSS(0.0), r"AMSS\(temperature\).*above 0"),
        (lambda: AMSS(offset=math.nan), r"AMSS\(offset\)"),
        (lambda: AMSS(bounds=(0.5, 1.5)), r"AMSS\(bounds\).*1\.5"),
        (lambda: AMSS(parameters="filters"), "selection of parameters"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        make()
