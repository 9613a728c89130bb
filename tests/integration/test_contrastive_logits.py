"""Logits of B x B: scored as the user says, refused by what reads classes, before any NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq


def similarities(queries: Tensor, candidates: Tensor) -> Tensor:
    return F.normalize(queries, dim=1) @ F.normalize(candidates, dim=1).T / 0.1


class Compare(nn.Module):
    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        return similarities(audio, visual)


class Dual(nn.Module):
    """With a head that compares, or without any."""

    def __init__(self, headed: bool) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(5, 8), nn.Linear(6, 8)
        self.head = Compare() if headed else None

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        features = self.audio(audio), self.visual(visual)
        return similarities(*features) if self.head is None else self.head(*features)


class Classifier(Dual):
    """As many classes as samples: nothing is compared."""

    def __init__(self, headed: bool, classes: int) -> None:
        super().__init__(headed)
        self.out = nn.Linear(16, classes)
        if headed:
            self.head = self.out  # type: ignore[assignment]

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        return self.out(torch.cat([self.audio(audio), self.visual(visual)], 1))  # type: ignore[no-any-return]


def as_query(features: Any) -> dict[str, Tensor]:
    a, v = features["audio"], features["visual"]
    return {"audio": similarities(a, v), "visual": similarities(v, a)}


def loss_of(model: Dual, method: eq.Method, scores: Any, size: int = 8) -> Tensor:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "visual": model.visual}
    balancer = eq.Balancer(method, model, encoders, model.head, optimizer, scores=scores)
    loss = balancer.loss(model(torch.randn(size, 5), torch.randn(size, 6)), torch.arange(size))
    balancer.backward(loss)
    balancer.modulate()
    return loss


each_layout = pytest.mark.parametrize("headed", [True, False], ids=["head", "no head"])


@each_layout
@pytest.mark.parametrize(
    "method", [eq.AGM, eq.CML, eq.DGL, eq.MCR, eq.MMPareto, eq.MultiLoss, eq.Ensemble, eq.MLA]
)
def test_methods_that_read_classes_are_refused_by_name(
    method: type[eq.Method], headed: bool
) -> None:
    with pytest.raises(
        eq.MatchError, match=rf"^{method.__name__} reads logits of classes.*\(8, 8\)"
    ):
        loss_of(Dual(headed), method(), as_query)


@each_layout
def test_probes_are_refused(headed: bool) -> None:
    with pytest.raises(eq.MatchError, match=r"^Probe reads logits of classes"):
        loss_of(Dual(headed), eq.OGM(0.3), eq.Probe())


@each_layout
def test_scores_of_the_users_own_work(headed: bool) -> None:
    for method in (eq.OGM(0.3), eq.OGMGE(0.3)):
        assert loss_of(Dual(headed), method, as_query).isfinite()


@each_layout
@pytest.mark.parametrize("method", [eq.AGM, eq.CML, eq.MultiLoss])
def test_as_many_classes_as_samples_are_classes(method: type[eq.Method], headed: bool) -> None:
    """Also with every row's own class as its target, as in a contrastive pair."""
    assert loss_of(Classifier(headed, 8), method(), eq.Probe()).isfinite()
