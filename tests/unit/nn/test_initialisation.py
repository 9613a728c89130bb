"""What weights start from, by their statistics."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from equimodal.nn import initialise


def spread(weight: torch.Tensor) -> float:
    return float(weight.detach().std())


@pytest.mark.parametrize(
    ("convolution", "fan_out"),
    [
        (nn.Conv1d(40, 60, 9), 60 * 9),
        (nn.Conv2d(40, 60, 5), 60 * 25),
        (nn.Conv3d(20, 30, 3), 30 * 27),
    ],
)
def test_convolutions_keep_the_variance_of_gradients(
    convolution: nn.Conv1d | nn.Conv2d | nn.Conv3d, fan_out: int
) -> None:
    torch.manual_seed(0)
    initialise(convolution)
    assert spread(convolution.weight) == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
    assert convolution.bias is not None
    assert not convolution.bias.any()


def test_linear_layers_are_between_both_fans() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(300, 100)
    initialise(linear)
    assert spread(linear.weight) == pytest.approx(math.sqrt(2 / 400), rel=0.03)
    assert float(linear.weight.detach().mean()) == pytest.approx(0, abs=0.002)
    assert linear.weight.detach().abs().max() > math.sqrt(6 / 400)  # normal, not uniform
    assert not linear.bias.any()


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.LayerNorm(3), nn.BatchNorm1d(3, affine=False)],
)
def test_normalisation_starts_as_the_identity(norm: nn.Module) -> None:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    initialise(norm)
    for name, parameter in norm.named_parameters():
        assert parameter.eq(1 if name == "weight" else 0).all()


def test_buffers_and_other_parameters_stay() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Embedding(5, 3), nn.Linear(3, 2, bias=False))
    model[0](torch.randn(8, 3))
    before = copy.deepcopy(model.state_dict())
    initialise(model)
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"2.weight"}
