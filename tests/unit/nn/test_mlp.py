"""The multilayer perceptron."""

from __future__ import annotations

import itertools

import pytest
import torch

import equimodal as eq
from equimodal.nn import MLP


def test_equals_its_layers_by_hand() -> None:
    torch.manual_seed(0)
    model = MLP(inputs=12, hidden=(7, 5), features=4).double()
    x = torch.randn(3, 2, 6, dtype=torch.float64)
    hidden = x.reshape(3, 12)
    for level in range(3):
        weight, bias = list(model.parameters())[2 * level : 2 * level + 2]
        hidden = hidden @ weight.T + bias
        hidden = hidden.clamp(min=0) if level < 2 else hidden
    torch.testing.assert_close(model(x), hidden)
    assert model(x).min() < 0  # the last layer is not rectified


@pytest.mark.parametrize("hidden", [(), (7,), [7, 5, 3]])
def test_parameters_and_width(hidden: tuple[int, ...]) -> None:
    model = MLP(inputs=6, hidden=hidden, features=4)
    widths = [6, *hidden, 4]
    expected = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model.features == 4
    assert model(torch.randn(2, 6)).shape == (2, 4)


def test_dropout_acts_in_training_only() -> None:
    model = MLP(inputs=6, hidden=(50,), features=4, dropout=0.5)
    x = torch.randn(2, 6)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("shape", [(2, 5), (2, 7), (6,), (2, 6, 6)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(eq.SetupError, match=r"expected a tensor of shape \(B, 6\), found"):
        MLP(inputs=6)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": 0}, "inputs"),
        ({"hidden": (3, 0)}, r"hidden\[1\]"),
        ({"features": 0}, "features"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
    ],
)
def test_refuses_arguments(settings: dict[str, float], words: str) -> None:
    with pytest.raises(eq.SetupError, match=rf"MLP\({words}\): expected"):
        MLP(**{"inputs": 6, **settings})
