"""Small convolutional encoders in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.nn import CNN1d, CNN2d, CNN3d

KINDS: list[Any] = [(CNN1d, (17,)), (CNN2d, (17, 12)), (CNN3d, (7, 12, 9))]


@pytest.mark.parametrize(("kind", "size"), KINDS)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shapes(kind: Any, size: tuple[int, ...], norm: Any, depth: int) -> None:
    model = kind(3, features=10, width=8, depth=depth, norm=norm)
    assert model.features == 10
    assert model(torch.randn(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize(("kind", "size"), KINDS)
@pytest.mark.parametrize(("norm", "extra"), [("batch", 2), ("group", 2), ("none", 1)])
def test_parameters(kind: Any, size: tuple[int, ...], norm: Any, extra: int) -> None:
    model = kind(3, features=10, width=4, depth=3, norm=norm)
    kernel = 3 ** len(size)
    expected = kernel * (3 * 4 + 4 * 8 + 8 * 10) + extra * (4 + 8 + 10)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_equals_convolutions_by_hand(kind: Any, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = kind(3, features=5, width=4, depth=3, norm="none").double()
    convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(size)]
    inputs = torch.randn(2, 3, *size, dtype=torch.float64)
    x: Tensor = inputs
    parameters = list(model.parameters())
    for parameter in parameters[1::2]:
        nn.init.normal_(parameter)
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        x = convolution(x, weight, bias, stride=2, padding=1).relu()
    torch.testing.assert_close(model(inputs), x.mean(dim=tuple(range(2, x.ndim))))


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_norm_is_what_was_asked_for(kind: Any, size: tuple[int, ...]) -> None:
    def norms(norm: Any, width: int = 16) -> list[nn.Module]:
        layers = kind(3, features=10, width=width, norm=norm).modules()
        return [m for m in layers if "Norm" in type(m).__name__]

    assert [type(m) for m in norms("batch")] == 3 * [getattr(nn, f"BatchNorm{len(size)}d")]
    assert [m.num_groups for m in norms("group") if isinstance(m, nn.GroupNorm)] == [2, 4, 1]
    assert norms("none") == []


@pytest.mark.parametrize("norm", ["group", "none"])
def test_samples_are_independent_in_training_without_batchnorm(norm: Any) -> None:
    model = CNN2d(3, features=8, norm=norm).double()
    x = torch.randn(5, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))


@pytest.mark.parametrize(("kind", "size"), KINDS)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_no_input_is_too_short(kind: Any, size: tuple[int, ...], norm: Any) -> None:
    model = kind(2, features=8, width=8, depth=5, norm=norm)
    features = model(torch.randn(4, 2, *[1 for _ in size]))
    assert features.isfinite().all()
    assert features.ne(0).any()


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_refuses_other_shapes(kind: Any, size: tuple[int, ...]) -> None:
    model = kind(3, width=4)
    for shape in [(3, *size), (2, 4, *size), (2, 3, *size, 5)]:  # no batch, channels, dimension
        with pytest.raises(eq.SetupError, match=r"\(B, 3, ") as error:
            model(torch.zeros(shape))
        assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    "settings", [{"in_channels": 0}, {"features": 0}, {"width": 0}, {"depth": 0}]
)
def test_refuses_sizes(settings: dict[str, Any]) -> None:
    with pytest.raises(eq.SetupError, match="1 or more, found 0"):
        CNN1d(**{"in_channels": 1, **settings})


def test_refuses_an_unknown_norm() -> None:
    with pytest.raises(eq.SetupError, match="did you mean 'group'"):
        CNN1d(3, norm="groups")


@pytest.mark.parametrize(
    ("kind", "shape", "time"),
    [(CNN1d, (5, 3, 64), 2), (CNN2d, (5, 3, 20, 64), 3), (CNN3d, (5, 3, 64, 12, 12), 2)],
)
@torch.no_grad()
def test_bins_of_time_keep_its_order(kind: Any, shape: tuple[int, ...], time: int) -> None:
    """The same event later: with one bin nothing tells when it was, with four bins all does."""
    torch.manual_seed(0)
    early = torch.zeros(shape)
    event = early.narrow(time, 8, 16)
    event.copy_(torch.randn(event.shape))
    late = early.roll(32, time)
    moved = {}
    for bins in (1, 4):
        torch.manual_seed(1)
        encoder = kind(3, 16, norm="none", bins=bins).eval()
        one, other = encoder(early), encoder(late)
        assert one.shape == (5, 16)
        moved[bins] = float((one - other).norm() / one.norm())
    assert moved[1] < 1e-4
    assert moved[4] > 0.3
    short = torch.randn(*(n if axis != time else 1 for axis, n in enumerate(shape)))
    assert torch.isfinite(kind(3, 16, norm="none", bins=4)(short)).all()


def test_one_bin_has_the_state_that_it_had() -> None:
    assert not [key for key in CNN1d(3).state_dict() if "together" in key]
    with pytest.raises(eq.SetupError, match="bins"):
        CNN1d(3, bins=0)
