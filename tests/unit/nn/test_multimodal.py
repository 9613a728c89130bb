"""A model of encoders and a head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import equimodal as eq
from equimodal.nn import MLP, Concat, Multimodal, SequenceTransformer


def encoders() -> dict[str, nn.Module]:
    return {"audio": MLP(6, (5,), 3), "visual": MLP(4, (5,), 2)}


def test_is_the_head_on_the_features_in_order() -> None:
    parts = encoders()
    head = Concat({"audio": 3, "visual": 2}, 4)
    model = Multimodal(parts, head)
    audio, visual = torch.randn(5, 6), torch.randn(5, 4)
    expected = head(parts["audio"](audio), parts["visual"](visual))
    torch.testing.assert_close(model(audio, visual), expected)
    assert dict(model.encoders.items()) == parts
    assert model.head is head
    names = {name.rsplit(".", 1)[0] for name, _ in model.named_parameters()}
    assert {"encoders.audio.layers.1", "encoders.visual.layers.1", "head.linear"} <= names


def test_takes_any_modules() -> None:
    class Mean(nn.Module):
        def forward(self, *features: torch.Tensor) -> torch.Tensor:
            return torch.stack(features).mean(0)

    parts = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(4, 2), "c": nn.Identity()})
    model = Multimodal(parts, Mean())
    assert model(torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 2)).shape == (5, 2)
    assert Multimodal({"text": nn.Linear(3, 2)}, nn.Identity())(torch.randn(5, 3)).shape == (5, 2)


def test_a_tuple_is_several_arguments_of_one_encoder() -> None:
    text = SequenceTransformer(3, features=8, heads=2).eval()
    model = Multimodal(
        {"audio": MLP(6, (), 3), "text": text}, Concat({"audio": 3, "text": 8}, 4)
    ).eval()
    audio, sequence = torch.randn(2, 6), torch.randn(2, 5, 3)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    masked = model(audio, (sequence, mask))
    assert not torch.allclose(masked, model(audio, sequence))
    torch.testing.assert_close(masked[1:], model(audio[1:], sequence[1:, :2]))


def test_a_packed_sequence_is_one_argument() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 2, batch_first=True)

        def forward(self, x: nn.utils.rnn.PackedSequence) -> torch.Tensor:
            last: torch.Tensor = self.rnn(x)[1][0]
            return last

    packed: Any = nn.utils.rnn.pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    model = Multimodal({"audio": MLP(6, (), 3), "text": Last()}, Concat({"audio": 3, "text": 2}, 4))
    assert model(torch.randn(2, 6), packed).shape == (2, 4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "expected a dict of modalities"),
        ([nn.Identity()], "expected a dict of modalities"),
        ({"visual.rgb": nn.Identity()}, "without dots.* write 'visual_rgb'"),
        ({"items": nn.Identity()}, "'items': torch gives this name a meaning"),
        ({"audio": "resnet"}, r"encoders\['audio'\]\): expected a module, found 'resnet'"),
    ],
)
def test_refuses_encoders(given: Any, words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        Multimodal(given, nn.Identity())


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        (
            {"visual": 2, "audio": 3},
            "features of visual, audio, but the encoders are audio, visual",
        ),
        ({"audio": 3, "text": 2}, "features of audio, text, but the encoders are audio, visual"),
        ({"audio": 3, "visual": 5}, "visual of width 5, but its encoder returns 2"),
    ],
)
def test_refuses_a_head_that_does_not_fit(widths: dict[str, int], words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        Multimodal(encoders(), Concat(widths, 4))


def test_refuses_another_number_of_inputs() -> None:
    model = Multimodal(encoders(), Concat({"audio": 3, "visual": 2}, 4))
    with pytest.raises(eq.SetupError, match="inputs of audio, visual, found 1 arguments"):
        model(torch.randn(5, 6))
