"""What holds for every encoder, and every encoder with every head under a balancer."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.nn import (
    MLP,
    CNN1d,
    CNN2d,
    CNN3d,
    Concat,
    FiLM,
    Gated,
    LateAverage,
    LearnedPositions,
    Multimodal,
    ResNet18,
    SequenceTransformer,
    Sum,
)

ENCODERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "resnet of maps": (lambda: ResNet18(1, width=4), (1, 33, 40)),
    "resnet of frames": (lambda: ResNet18(3, width=4), (3, 2, 32, 32)),
    "cnn1d": (lambda: CNN1d(2, 6, width=4), (2, 20)),
    "cnn1d with group norm": (lambda: CNN1d(2, 6, width=8, norm="group"), (2, 20)),
    "cnn2d": (lambda: CNN2d(3, 6, width=4), (3, 12, 10)),
    "cnn2d without norm": (lambda: CNN2d(3, 6, width=4, norm="none"), (3, 12, 10)),
    "cnn3d": (lambda: CNN3d(1, 6, width=4), (1, 5, 8, 8)),
    "mlp": (lambda: MLP(6, (5,), 4), (2, 3)),
    "mlp with dropout": (lambda: MLP(6, (8, 8), 4, dropout=0.2), (6,)),
    "transformer": (lambda: SequenceTransformer(3, 8, heads=2), (5, 3)),
    "transformer with learned positions": (
        lambda: SequenceTransformer(3, 8, 1, 2, positions=LearnedPositions(5, 8)),
        (5, 3),
    ),
}
HEADS: list[Any] = [Concat, Sum, LateAverage, FiLM, Gated]


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return ENCODERS[request.param][0]().double().eval()


@pytest.fixture
def inputs(request: pytest.FixtureRequest, encoder: Any) -> Tensor:
    shape = ENCODERS[request.node.callspec.params["encoder"]][1]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, *shape, generator=generator, dtype=torch.float64)


def test_features_have_the_announced_width(encoder: Any, inputs: Tensor) -> None:
    features = encoder(inputs)
    assert features.shape == (6, encoder.features)
    assert features.dtype == torch.float64
    assert features.isfinite().all()
    assert features.std(dim=0).max() > 0


def test_samples_are_independent_in_evaluation(encoder: Any, inputs: Tensor) -> None:
    features = encoder(inputs)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(encoder(inputs[order]), features[order])
    for index in range(len(inputs)):
        torch.testing.assert_close(encoder(inputs[index : index + 1]), features[index : index + 1])


def test_an_empty_batch_has_no_features(encoder: Any, inputs: Tensor) -> None:
    assert encoder(inputs[:0]).shape == (0, encoder.features)


def test_does_not_change_its_input(encoder: Any, inputs: Tensor) -> None:
    before = inputs.clone()
    encoder.train()(inputs)
    assert torch.equal(inputs, before)


def test_every_parameter_learns(encoder: Any, inputs: Tensor) -> None:
    encoder.train()(inputs).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))]
)
def test_copies_and_pickles(encoder: Any, inputs: Tensor, copied: Any) -> None:
    twin = copied(encoder)
    assert torch.equal(twin(inputs), encoder(inputs))
    assert twin.features == encoder.features
    assert all(a is not b for a, b in zip(twin.parameters(), encoder.parameters(), strict=True))


def test_state_round_trip(request: pytest.FixtureRequest, encoder: Any, inputs: Tensor) -> None:
    twin = ENCODERS[request.node.callspec.params["encoder"]][0]().double().eval()
    assert not torch.equal(twin(inputs), encoder(inputs))
    twin.load_state_dict(saved_and_loaded(encoder.state_dict()))
    assert torch.equal(twin(inputs), encoder(inputs))


def test_the_same_seed_gives_the_same_encoder(request: pytest.FixtureRequest, encoder: Any) -> None:
    torch.manual_seed(0)
    twin = ENCODERS[request.node.callspec.params["encoder"]][0]().double()
    pairs = zip(encoder.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("head", HEADS)
def test_models_copy_pickle_and_save(head: Any) -> None:
    model, batch = world("cnn1d", head, 3)
    *inputs, _ = batch
    model.eval()
    expected = model(*inputs)
    assert torch.equal(copy.deepcopy(model)(*inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(*inputs), expected)
    other, _ = world("cnn1d", head, 3, seed=1)
    assert not torch.equal(other.eval()(*inputs), expected)
    other.load_state_dict(saved_and_loaded(model.state_dict()))
    assert torch.equal(other(*inputs), expected)


# ---------------------------------------------------------------------- under a balancer


def saved_and_loaded(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def world(
    name: str, head: Any, modalities: int = 2, classes: int = 3, seed: int = 0
) -> tuple[Multimodal, list[Tensor]]:
    """Return a model with this encoder first, and a batch for it."""
    torch.manual_seed(seed)
    make, shape = ENCODERS[name]
    encoders: dict[str, nn.Module] = {"audio": make(), "visual": MLP(5, (6,), 7)}
    shapes = [shape, (5,)]
    if modalities == 3:
        encoders["text"] = SequenceTransformer(3, 8, layers=1, heads=2)
        shapes.append((4, 3))
    widths: dict[str, Any] = {name: encoder.features for name, encoder in encoders.items()}
    inputs = [torch.randn(6, *shape) for shape in shapes]
    return Multimodal(encoders, head(widths, classes)), [*inputs, torch.arange(6) % classes]


def trained(
    model: Multimodal, batch: list[Tensor], method: eq.Method, steps: int = 3, scores: Any = "auto"
) -> dict[str, float]:
    *inputs, target = batch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    encoders = dict(model.encoders.items())
    settings: Any = {"track_every": 1, "scores": scores}
    with eq.Balancer(method, model, encoders, model.head, optimizer, **settings) as balancer:
        for _ in range(steps):
            loss = balancer.loss(model(*inputs), target)
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        return balancer.metrics()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", HEADS)
def test_trains_with_ogm_ge(name: str, head: Any) -> None:
    model, batch = world(name, head)
    before = copy.deepcopy(model.state_dict())
    metrics = trained(model, batch, eq.OGMGE(alpha=0.8))
    for modality in ("audio", "visual"):
        assert 0 < metrics[f"evidence/{modality}"] <= 1
        assert 0 < metrics[f"coefficient/{modality}"] <= 1
        assert math.isfinite(metrics[f"gradient_norm/{modality}"])
    for parameter, value in model.named_parameters():
        assert value.isfinite().all(), parameter
        if value.ndim > 1:
            assert not torch.equal(value, before[parameter]), parameter


@pytest.mark.parametrize("head", HEADS)
def test_trains_three_modalities_with_ogm_ge(head: Any) -> None:
    model, batch = world("cnn2d", head, modalities=3)
    metrics = trained(model, batch, eq.OGMGE(alpha=0.8))
    assert all(0 < metrics[f"evidence/{name}"] <= 1 for name in ("audio", "visual", "text"))


@pytest.mark.parametrize("head", HEADS)
def test_learns_a_batch_by_heart(head: Any) -> None:
    model, batch = world("cnn2d without norm", head)
    *inputs, target = batch
    start = F.cross_entropy(model(*inputs), target).item()
    trained(model, batch, eq.OGM(alpha=0.1), steps=60)
    assert F.cross_entropy(model(*inputs), target).item() < 0.5 * start


@pytest.mark.parametrize("head", [Concat, Sum, LateAverage])
def test_evidence_is_that_of_the_heads_own_split(head: Any) -> None:
    model, batch = world("cnn1d", head)
    *inputs, target = batch
    encoded = zip(model.encoders.items(), inputs, strict=True)
    features = {name: encoder(x) for (name, encoder), x in encoded}
    expected = {
        name: logits.softmax(1)[torch.arange(6), target].mean().item()
        for name, logits in model.head.unimodal_logits(features).items()
    }
    metrics = trained(model, batch, eq.OGM(alpha=0.8), steps=1)
    for name, score in expected.items():
        assert metrics[f"evidence/{name}"] == pytest.approx(score, rel=1e-5)


def mean(feature: Tensor) -> Tensor:
    return feature.mean(0).expand_as(feature)


@pytest.mark.parametrize(("head", "fill"), [(FiLM, torch.zeros_like), (Gated, mean)])
def test_evidence_of_other_heads_is_ablated(head: Any, fill: Any) -> None:
    """With zeros in place of what it gates, a gate would have nothing to say: hence the mean."""
    model, batch = world("cnn1d", head)
    *inputs, target = batch
    encoded = zip(model.encoders.values(), inputs, strict=True)
    audio, visual = (encoder(x) for encoder, x in encoded)
    alone = {
        "audio": model.head(audio, fill(visual)),
        "visual": model.head(fill(audio), visual),
    }
    metrics = trained(model, batch, eq.OGM(alpha=0.8), steps=1)
    for name, logits in alone.items():
        score = logits.softmax(1)[torch.arange(6), target].mean().item()
        assert metrics[f"evidence/{name}"] == pytest.approx(score, rel=1e-5)


def test_a_probe_scores_the_modality_that_gates() -> None:
    """Ablation with zeros cannot: at the start, nothing but the bias is left to be gated."""
    evidence = {}
    for scores in (eq.Ablation(), eq.Probe()):
        model, batch = world("cnn1d", Gated)
        metrics = trained(model, batch, eq.OGM(alpha=0.8), steps=1, scores=scores)
        evidence[type(scores)] = metrics["evidence/audio"]
    assert evidence[eq.Ablation] == pytest.approx(1 / 3)
    assert evidence[eq.Probe] != pytest.approx(1 / 3)
