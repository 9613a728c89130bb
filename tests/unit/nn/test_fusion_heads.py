"""Fusion heads against the same sums written out, one sample and one class at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import equimodal as eq
from equimodal.nn import Concat, FiLM, FusionHead, Gated, LateAverage, Sum, initialise

NAMES = ("audio", "visual", "text", "depth")
HEADS: list[Any] = [Concat, Sum, LateAverage, FiLM, Gated]
EXACT: list[Any] = [Concat, Sum, LateAverage]

Rows = list[list[float]]


def made(kind: Any, widths: dict[str, int], classes: int = 3, seed: int = 0, **extra: Any) -> Any:
    """Return a head in double precision, with biases that matter."""
    torch.manual_seed(seed)
    head = kind(widths, classes, **extra).double()
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return head


def some(widths: dict[str, int], size: int = 4, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(size, width, generator=generator, dtype=torch.float64)
        for name, width in widths.items()
    }


def of(modalities: int) -> dict[str, int]:
    return dict(zip(NAMES[:modalities], (3, 5, 2, 4), strict=False))


def affine(x: list[float], layer: nn.Linear) -> list[float]:
    return [
        sum(w * value for w, value in zip(row, x, strict=True)) + bias
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


# ---------------------------------------------------------------------- slow twins


def split_concat(head: Concat, features: dict[str, Tensor]) -> dict[str, Rows]:
    weight, bias = head.linear.weight.tolist(), head.linear.bias.tolist()
    split: dict[str, Rows] = {}
    first = 0
    for name, feature in features.items():
        split[name] = [
            [
                bias[c] / len(features) + sum(weight[c][first + i] * z for i, z in enumerate(row))
                for c in range(len(bias))
            ]
            for row in feature.tolist()
        ]
        first += feature.shape[1]
    return split


def split_classifiers(head: Any, features: dict[str, Tensor]) -> dict[str, Rows]:
    return {
        name: [affine(row, head.classifiers[name]) for row in feature.tolist()]
        for name, feature in features.items()
    }


def film_by_hand(head: FiLM, features: dict[str, Tensor]) -> Rows:
    logits = []
    for i in range(len(next(iter(features.values())))):
        h = features[head.conditioned][i].tolist()
        for name, feature in features.items():
            if name != head.conditioned:
                generator = head.generators[name]
                assert isinstance(generator, nn.Linear)
                values = affine(feature[i].tolist(), generator)
                gamma, beta = values[: len(h)], values[len(h) :]
                h = [g * x + b for g, x, b in zip(gamma, h, beta, strict=True)]
        logits.append(affine(h, head.linear))
    return logits


def gated_by_hand(head: Gated, features: dict[str, Tensor]) -> Rows:
    logits = []
    for i in range(len(next(iter(features.values())))):
        h: list[float] = []
        projected = {}
        for name, feature in features.items():
            projection = head.projections[name]
            assert isinstance(projection, nn.Linear)
            projected[name] = affine(feature[i].tolist(), projection)
        for k in range(head.linear.in_features):
            value = sum(p[k] for name, p in projected.items() if name not in head.gates)
            for name in head.gates:
                value *= 1 / (1 + math.exp(-projected[name][k]))
            h.append(value)
        logits.append(affine(h, head.linear))
    return logits


def close(found: Tensor, expected: Rows) -> None:
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11
    )


# ---------------------------------------------------------------------- all heads


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_any_number_of_modalities(kind: Any, modalities: int) -> None:
    widths = of(modalities)
    head = made(kind, widths, classes=6)
    assert isinstance(head, FusionHead)
    assert head.widths == widths
    assert head.classes == 6
    assert head(*some(widths, size=5).values()).shape == (5, 6)


@pytest.mark.parametrize("kind", HEADS)
def test_steps_between_batch_and_width(kind: Any) -> None:
    widths = of(3)
    head = made(kind, widths)
    steps = {name: torch.stack([z, 2 * z], dim=1) for name, z in some(widths).items()}
    logits = head(*steps.values())
    for time in range(2):
        torch.testing.assert_close(logits[:, time], head(*(z[:, time] for z in steps.values())))


@pytest.mark.parametrize("kind", HEADS)
def test_every_modality_and_every_parameter_takes_part(kind: Any) -> None:
    widths = of(3)
    head = made(kind, widths)
    features = {name: z.requires_grad_() for name, z in some(widths).items()}
    head(*features.values()).square().sum().backward()
    assert all(z.grad is not None and z.grad.ne(0).any() for z in features.values())
    assert all(p.grad is not None and p.grad.ne(0).any() for p in head.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_linear_layers_start_as_in_the_published_code(kind: Any) -> None:
    torch.manual_seed(0)
    for layer in kind({"audio": 200, "visual": 200}, 100).modules():
        if isinstance(layer, nn.Linear):
            expected = math.sqrt(2 / (layer.in_features + layer.out_features))
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.03)
            if kind is not FiLM:
                assert not layer.bias.any()


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Concat, 3 * 10 + 3),
        (Sum, 3 * 10 + 9),
        (LateAverage, 3 * 10 + 9),
        (FiLM, (3 + 1 + 5 + 1) * 2 * 2 + 3 * 2 + 3),
        (Gated, 5 * (10 + 3) + 3 * 5 + 3),
    ],
)
def test_parameters(kind: Any, parameters: int) -> None:
    assert sum(p.numel() for p in kind(of(3), 3).parameters()) == parameters


@pytest.mark.parametrize("kind", HEADS)
def test_only_an_exact_split_has_unimodal_logits(kind: Any) -> None:
    assert hasattr(kind(of(2), 3), "unimodal_logits") == (kind in EXACT)


# ---------------------------------------------------------------------- exact splits

TWINS: dict[Any, Callable[[Any, dict[str, Tensor]], dict[str, Rows]]] = {
    Concat: split_concat,
    Sum: split_classifiers,
    LateAverage: split_classifiers,
}


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    classes=st.integers(1, 5),
    size=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_unimodal_logits_equal_their_slow_twin_and_add_up(
    kind: Any, sizes: list[int], classes: int, size: int, seed: int
) -> None:
    widths = dict(zip(NAMES, sizes, strict=False))
    head = made(kind, widths, classes, seed)
    features = some(widths, size, seed)
    unimodal = head.unimodal_logits(features)
    for name, expected in TWINS[kind](head, features).items():
        close(unimodal[name], expected)
    total = torch.stack(list(unimodal.values())).sum(0)
    expected_logits = total / len(widths) if kind is LateAverage else total
    torch.testing.assert_close(head(*features.values()), expected_logits, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", EXACT)
def test_unimodal_logits_go_by_name(kind: Any) -> None:
    widths = of(3)
    head, features = made(kind, widths), some(widths)
    straight = head.unimodal_logits(features)
    backwards = head.unimodal_logits(dict(reversed(features.items())))
    assert list(straight) == list(backwards) == list(widths)
    for name in widths:
        assert torch.equal(straight[name], backwards[name])


@pytest.mark.parametrize("kind", EXACT)
def test_unimodal_logits_keep_their_graph(kind: Any) -> None:
    widths = of(2)
    head = made(kind, widths)
    features = {name: z.requires_grad_() for name, z in some(widths).items()}
    head.unimodal_logits(features)["audio"].sum().backward()
    assert features["audio"].grad is not None
    assert features["visual"].grad is None


# ---------------------------------------------------------------------- other heads


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("conditioned", [None, "audio", "visual"])
def test_film_equals_its_formula(modalities: int, conditioned: str | None) -> None:
    widths = of(modalities)
    head = made(FiLM, widths, conditioned=conditioned)
    assert head.conditioned == (conditioned or NAMES[modalities - 1])
    features = some(widths)
    close(head(*features.values()), film_by_hand(head, features))


def test_film_starts_close_to_the_conditioned_features() -> None:
    widths = of(4)
    head = FiLM(widths, 3).double()
    features = some(widths)
    for name in ("audio", "visual", "text"):
        features[name].zero_()
    torch.testing.assert_close(head(*features.values()), head.linear(features["depth"]))


def test_film_can_start_as_in_the_published_code() -> None:
    head = FiLM(of(3), 3)
    initialise(head)
    biases = [parameter for name, parameter in head.named_parameters() if name.endswith("bias")]
    assert len(biases) == 3
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("gates", [None, "visual", ["visual"]])
def test_gated_equals_its_formula(modalities: int, gates: Any) -> None:
    widths = of(modalities)
    head = made(Gated, widths, gates=gates, hidden=7)
    assert head.gates == (("visual",) if gates else ("audio",))
    features = some(widths)
    close(head(*features.values()), gated_by_hand(head, features))


def test_several_gates() -> None:
    widths = of(4)
    head = made(Gated, widths, gates=("depth", "audio"))
    assert head.gates == ("audio", "depth")
    assert head.linear.in_features == 5
    features = some(widths)
    close(head(*features.values()), gated_by_hand(head, features))


def test_gated_is_the_papers_for_two_modalities() -> None:
    widths = of(2)
    head = made(Gated, widths)
    audio, visual = some(widths).values()
    gate = torch.sigmoid(head.projections["audio"](audio))
    torch.testing.assert_close(
        head(audio, visual), head.linear(gate * head.projections["visual"](visual))
    )


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize(
    ("widths", "classes", "words"),
    [
        ({"audio": 3}, 3, r"\(widths\): expected a dict of two or more modalities"),
        ([3, 4], 3, r"\(widths\): expected a dict .* found \[3, 4\]"),
        ({"audio": 3, "visual": 0}, 3, r"\(widths\['visual'\]\): .* found 0"),
        ({"audio": 3, "visual": "4"}, 3, r"\(widths\['visual'\]\): .* found '4'"),
        ({"audio": 3, "visual": 4}, 0, r"\(classes\): .* found 0"),
        ({"audio": 3, "visual.rgb": 4}, 3, "without dots.* write 'visual_rgb'"),
        ({"audio": 3, "values": 4}, 3, "'values': torch gives this name a meaning"),
        ({"audio": 3, "training": 4}, 3, "'training': torch gives this name a meaning"),
        ({"audio": 3, "": 4}, 3, "expected a name"),
        ({"audio": 3, 1: 4}, 3, "modality 1: expected a name"),
    ],
)
def test_refuses_widths(kind: Any, widths: Any, classes: int, words: str) -> None:
    with pytest.raises(eq.SetupError, match=rf"^{kind.__name__}.*{words}"):
        kind(widths, classes)


@pytest.mark.parametrize("kind", HEADS)
def test_refuses_features(kind: Any) -> None:
    head = made(kind, of(2))
    audio, visual = some(of(2)).values()
    with pytest.raises(eq.SetupError, match="features of audio, visual, found 1 arguments"):
        head(audio)
    with pytest.raises(eq.SetupError, match=r"of audio of shape \(B, ..., 3\), found \(4, 5\)"):
        head(visual, audio)


@pytest.mark.parametrize("kind", EXACT)
def test_refuses_features_by_name(kind: Any) -> None:
    head = made(kind, of(2))
    audio, visual = some(of(2)).values()
    with pytest.raises(eq.SetupError, match="did you mean 'visual'"):
        head.unimodal_logits({"audio": audio, "visuals": visual})
    with pytest.raises(eq.SetupError, match="no features of visual"):
        head.unimodal_logits({"audio": audio})
    with pytest.raises(eq.SetupError, match=r"of visual of shape \(B, ..., 5\), found \(4, 3\)"):
        head.unimodal_logits({"audio": audio, "visual": audio})


@pytest.mark.parametrize(
    ("kind", "extra", "words"),
    [
        (FiLM, {"conditioned": "visuals"}, r"FiLM\(conditioned\): .* did you mean 'visual'"),
        (Gated, {"gates": "audios"}, r"Gated\(gates\): .* did you mean 'audio'"),
        (Gated, {"gates": ["audio", "visual"]}, "but not all"),
        (Gated, {"gates": []}, "expected some of audio, visual"),
        (Gated, {"hidden": 0}, r"Gated\(hidden\): .* found 0"),
    ],
)
def test_refuses_roles(kind: Any, extra: dict[str, Any], words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        kind(of(2), 3, **extra)
