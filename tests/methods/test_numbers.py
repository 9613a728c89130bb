"""Models that give a number for each sample, with or without a dimension of one: right, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
import equimodal.testing


class Regressor(nn.Module):
    def __init__(self, squeezed: bool) -> None:
        super().__init__()
        self.a, self.v, self.head = nn.Linear(4, 8), nn.Linear(5, 8), nn.Linear(16, 1)
        self.squeezed = squeezed

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        given: Tensor = self.head(torch.cat([self.a(a), self.v(v)], 1))
        return given.squeeze(1) if self.squeezed else given


def trained(method: eq.Method, squeezed: bool, **more: Any) -> tuple[Regressor, eq.Balancer, Any]:
    torch.manual_seed(0)
    model = Regressor(squeezed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.randn(6, 4), torch.randn(6, 5)
    target = torch.randn(6) if squeezed else torch.randn(6, 1)
    balancer = eq.Balancer(
        method,
        model,
        {"a": model.a, "v": model.v},
        model.head,
        optimizer,
        criterion=nn.MSELoss(),
        val_loader=[(*inputs, target)],
        epochs=3,
        **more,
    )
    for _ in range(2):
        balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    balancer.end_epoch()
    return model, balancer, inputs


@pytest.mark.parametrize("squeezed", [True, False])
def test_an_ensemble_of_numbers_is_their_mean(squeezed: bool) -> None:
    method = eq.Ensemble()
    model, balancer, (a, v) = trained(method, squeezed)
    with torch.no_grad():
        alone = method.readouts({"a": model.a(a), "v": model.v(v)})
        found = balancer.predict(a, v)
    expected = torch.stack(list(alone.values())).mean(dim=0)
    torch.testing.assert_close(found.reshape(6), expected.reshape(6))
    assert found.std() > 0


def test_an_ensemble_of_several_labels_is_their_mean() -> None:
    """Of labels of which several may be right a softmax over them has no meaning."""
    torch.manual_seed(0)
    method = eq.Ensemble()
    model = eq.testing.SmallModel().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    balancer = eq.Balancer(
        method, model, model.encoders, model.head, optimizer, criterion=nn.BCEWithLogitsLoss()
    )
    *inputs, target = eq.testing.batch(6)
    several = torch.nn.functional.one_hot(target, 3).double()
    balancer.backward(balancer.loss(model(*inputs), several))
    with torch.no_grad():
        found = balancer.predict(*inputs)
        features = {n: e(x) for (n, e), x in zip(model.encoders.items(), inputs, strict=True)}
        alone = method.readouts(features)
    torch.testing.assert_close(found, torch.stack(list(alone.values())).mean(dim=0))


@pytest.mark.parametrize("squeezed", [True, False])
@pytest.mark.parametrize("name", ["AUG", "DynamicMSLR"])
def test_what_counts_right_answers_is_refused(name: str, squeezed: bool) -> None:
    method = eq.DynamicMSLR(epochs=3) if name == "DynamicMSLR" else eq.AUG()
    with pytest.raises(eq.MatchError, match=rf"{name} is defined for one class per sample"):
        trained(method, squeezed)


@pytest.mark.parametrize("squeezed", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_teachers_of_numbers(flat: bool, squeezed: bool) -> None:
    """Whether a teacher's number has a dimension of its own does not matter."""

    class Teaching(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.encoder, self.last = nn.Linear(width, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            feature = self.encoder(x)
            logits = self.last(feature)
            return (logits.squeeze(1) if flat else logits), feature

    torch.manual_seed(0)
    teachers = {"a": Teaching(4), "v": Teaching(5)}
    model, _, _ = trained(eq.UMT(teachers), squeezed)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    with pytest.raises(eq.MatchError, match=r"G2D is defined for one class per sample"):
        trained(eq.G2D(teachers), squeezed)


@pytest.mark.parametrize("squeezed", [True, False])
def test_norms_of_numbers(squeezed: bool) -> None:
    trained(eq.OLM(), squeezed)
