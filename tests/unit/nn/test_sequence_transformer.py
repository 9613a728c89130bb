"""The transformer for sequences, its positions and its mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.nn import LearnedPositions, SequenceTransformer, SinusoidalPositions


def made(dtype: torch.dtype = torch.float64, **settings: Any) -> SequenceTransformer:
    torch.manual_seed(0)
    model = SequenceTransformer(inputs=5, features=8, heads=2, **settings).to(dtype)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and scales that matter
            nn.init.normal_(parameter, mean=0.5)
    return model.eval()


def by_hand(model: SequenceTransformer, sequence: Tensor) -> Tensor:
    """The features of one sequence ``(T, D)``, one step and one head at a time."""
    weights = dict(model.named_parameters())

    def normalised(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def affine(x: Tensor, name: str, kind: str = ".") -> Tensor:
        return x @ weights[f"{name}{kind}weight"].T + weights[f"{name}{kind}bias"]

    x = affine(sequence, "embedding")
    x = x + torch.tensor(
        [
            [
                (math.sin, math.cos)[i % 2](time / 10000 ** ((i - i % 2) / 8))
                for i in range(x.shape[1])
            ]
            for time in range(len(x))
        ],
        dtype=x.dtype,
    )
    for layer in range(len(model.encoder.layers)):
        name = f"encoder.layers.{layer}"
        queries, keys, values = affine(
            normalised(x, f"{name}.norm1"), f"{name}.self_attn", ".in_proj_"
        ).chunk(3, dim=-1)
        heads = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(4)
            heads.append(scores.softmax(-1) @ values[:, part])
        x = x + affine(torch.cat(heads, dim=-1), f"{name}.self_attn.out_proj")
        inner = affine(normalised(x, f"{name}.norm2"), f"{name}.linear1")
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        x = x + affine(inner, f"{name}.linear2")
    return normalised(x, "encoder.norm").mean(0)


@pytest.mark.parametrize("grad", [True, False])  # without, torch takes another path
def test_equals_attention_by_hand(grad: bool) -> None:
    model = made()
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        features = model(x)
    expected = torch.stack([by_hand(model, sequence) for sequence in x])
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-11)


def test_parameters_and_width() -> None:
    model = SequenceTransformer(inputs=5, features=8, layers=3, heads=2)
    layer = 4 * 8 * 8 + 4 * 8 + 2 * 8 * 32 + 32 + 8 + 4 * 8
    assert sum(p.numel() for p in model.parameters()) == 6 * 8 + 3 * layer + 2 * 8
    assert model.features == 8
    assert model(torch.randn(2, 4, 5)).shape == (2, 8)
    assert model(torch.randn(2, 1, 5)).shape == (2, 8)


def test_layers_start_from_different_values() -> None:
    torch.manual_seed(0)
    first, second = SequenceTransformer(inputs=5, features=64, layers=2).encoder.layers
    for name, parameter in first.named_parameters():
        if parameter.ndim > 1:
            assert not torch.equal(parameter, second.get_parameter(name)), name
            fans = sum(parameter.shape)
            spread = float(parameter.detach().std())
            assert spread == pytest.approx(math.sqrt(2 / fans), rel=0.05)


def test_sees_the_order_of_steps() -> None:
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    assert not torch.allclose(made()(x), made()(x.flip(1)))
    unordered = made(positions=nn.Identity())
    torch.testing.assert_close(unordered(x), unordered(x.flip(1)))


@pytest.mark.parametrize("positions", [None, "learned"])
@pytest.mark.parametrize("grad", [True, False])
def test_a_mask_equals_shorter_sequences(positions: str | None, grad: bool) -> None:
    model = made(positions=LearnedPositions(7, 8).double() if positions else None)
    lengths = [7, 3, 1]
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    x[~mask] = math.nan  # what is not there does not matter
    with torch.set_grad_enabled(grad):
        masked = model(x, mask)
        each = [model(row[None, :length])[0] for row, length in zip(x, lengths, strict=True)]
    torch.testing.assert_close(masked, torch.stack(each), rtol=1e-9, atol=1e-11)


def test_an_empty_sequence_has_the_feature_zero_and_no_gradient() -> None:
    model = made().train()
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4, [False] * 4])
    features = model(x, mask)
    features.square().sum().backward()
    assert features[1].eq(0).all()
    assert x.grad is not None
    assert x.grad[0].ne(0).any()
    assert x.grad[1].eq(0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_can_count() -> None:
    waves = SinusoidalPositions()(torch.zeros(1, 600, 8, dtype=torch.bfloat16))
    expected = SinusoidalPositions()(torch.zeros(1, 600, 8))
    torch.testing.assert_close(waves, expected.bfloat16())


@pytest.mark.parametrize("width", [1, 5, 8])
def test_waves_of_any_width(width: int) -> None:
    waves = SinusoidalPositions()(torch.zeros(2, 3, width, dtype=torch.float64))
    assert waves.shape == (2, 3, width)
    assert float(waves[1, 2, 0]) == pytest.approx(math.sin(2))


def test_learned_positions_are_learned_and_end() -> None:
    positions = LearnedPositions(length=4, width=6)
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(positions(x), x + positions.table[:3])
    assert positions.table.requires_grad
    with pytest.raises(eq.SetupError, match="up to 4 steps of width 6, found 5 of width 6"):
        positions(torch.zeros(2, 5, 6))
    with pytest.raises(eq.SetupError, match="found 3 of width 1"):  # would broadcast
        positions(torch.zeros(2, 3, 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": 0}, "inputs"),
        ({"features": 9}, "multiple of heads=4, found 9"),
        ({"layers": 0}, "layers"),
        ({"heads": 0}, "heads"),
        ({"feedforward": 0}, "feedforward"),
        ({"dropout": 2.0}, "dropout"),
    ],
)
def test_refuses_arguments(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        SequenceTransformer(**{"inputs": 5, **settings})


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 6), (2, 3, 4, 5)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(eq.SetupError, match=r"shape \(B, T, 5\), found"):
        SequenceTransformer(inputs=5)(torch.zeros(shape))


@pytest.mark.parametrize("mask", [torch.ones(2, 4), torch.ones(4, 2, dtype=torch.bool)])
def test_refuses_other_masks(mask: Tensor) -> None:
    with pytest.raises(eq.SetupError, match=r"expected bool of shape \(2, 4\), found"):
        SequenceTransformer(inputs=5)(torch.zeros(2, 4, 5), mask)
