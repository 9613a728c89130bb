"""ResNet-18: its size, its start, and its pooling of maps and frames."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.nn import ResNet18


def by_hand(model: ResNet18, x: Tensor) -> Tensor:
    """The features of one map in evaluation mode, from the weights in the order of the layers."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    layers = iter(zip(convolutions, norms, strict=True))

    def normalised(x: Tensor, stride: int) -> Tensor:
        convolution, norm = next(layers)
        weight = convolution.weight
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        shape = (1, -1, 1, 1)
        x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
        return x * norm.weight.view(shape) + norm.bias.view(shape)

    x = F.max_pool2d(normalised(x, 2).relu(), 3, 2, 1)
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = normalised(normalised(x, stride).relu(), 1)
            x = (inner + (normalised(x, stride) if stride == 2 else x)).relu()
    assert next(layers, None) is None
    return x.mean(dim=(2, 3))


@pytest.fixture
def small() -> ResNet18:
    """A narrow one in double precision whose BatchNorm has seen something."""
    torch.manual_seed(0)
    model = ResNet18(in_channels=3, width=4).double()
    for _ in range(3):
        model(1 + 2 * torch.randn(8, 3, 33, 40, dtype=torch.float64))
    return model.eval()


@pytest.mark.parametrize(("channels", "parameters"), [(3, 11_176_512), (1, 11_170_240)])
def test_has_the_parameters_of_the_known_trunk(channels: int, parameters: int) -> None:
    model = ResNet18(in_channels=channels)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.features == 512


def test_starts_as_in_the_published_code() -> None:
    torch.manual_seed(0)
    for layer in ResNet18().modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            spread = float(layer.weight.detach().std())
            assert spread == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
            assert layer.bias is None
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.eq(1).all()
            assert layer.bias.eq(0).all()
        assert not isinstance(layer, nn.Linear)


def test_returns_features_of_maps_and_frames() -> None:
    model = ResNet18(in_channels=1)
    assert model(torch.randn(2, 1, 33, 47)).shape == (2, 512)
    assert model(torch.randn(2, 1, 2, 17, 16)).shape == (2, 512)


def test_equals_the_architecture_by_hand(small: ResNet18) -> None:
    x = torch.randn(2, 3, 37, 50, dtype=torch.float64)
    torch.testing.assert_close(small(x), by_hand(small, x), rtol=1e-10, atol=1e-12)


def test_folding_frames_equals_a_loop_over_them(small: ResNet18) -> None:
    clips = torch.randn(3, 3, 5, 32, 24, dtype=torch.float64)
    looped = [
        torch.stack([small(clip[:, time][None])[0] for time in range(5)]).mean(0) for clip in clips
    ]
    torch.testing.assert_close(small(clips), torch.stack(looped), rtol=1e-10, atol=1e-12)


def test_one_frame_is_an_image(small: ResNet18) -> None:
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(small(image.unsqueeze(2)), small(image))


def test_batchnorm_sees_every_frame() -> None:
    model = ResNet18(in_channels=3, width=4)
    clips = torch.randn(2, 3, 4, 32, 32)
    frames = torch.cat([clip.transpose(0, 1) for clip in clips])
    folded = model(clips)
    each = model(frames)
    torch.testing.assert_close(folded, each.view(2, 4, -1).mean(1))


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 4, 3, 32, 32), (3, 32, 32), (2, 3)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(eq.SetupError, match=r"\(B, 3, H, W\) or \(B, 3, T, H, W\)") as error:
        ResNet18(in_channels=3, width=4)(torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("settings", [{"in_channels": 0}, {"width": -1}, {"width": 1.5}])
def test_refuses_sizes(settings: dict[str, int]) -> None:
    with pytest.raises(eq.SetupError, match="1 or more") as error:
        ResNet18(**settings)
    assert all(f"({name})" in str(error.value) for name in settings)
