"""Gradients of joint and unimodal losses, against backward passes of a copy."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.interval import few_interval
from equimodal.diagnostics.training.gradients import gradients
from support.subjects import LETTERS, Many, Sum, Through, data, loader_of


def flat(module: nn.Module) -> list[float]:
    return [value for p in module.parameters() for value in p.grad.double().flatten().tolist()]


def slow(model: Many, batch: list[Tensor], name: str) -> tuple[float, float, float]:
    """Cosine and both norms, by two backward passes of a copy and sums over single numbers."""
    copied = copy.deepcopy(model)
    *inputs, target = batch
    F.cross_entropy(copied(*inputs), target).backward()
    joint = flat(copied.encoders[name])
    copied.zero_grad()
    features = copied.features(inputs)
    alone = [f if n == name else torch.zeros_like(f) for n, f in features.items()]
    F.cross_entropy(copied.head(*alone), target).backward()
    single = flat(copied.encoders[name])
    norms = [math.sqrt(sum(v * v for v in of)) for of in (joint, single)]
    return sum(a * b for a, b in zip(joint, single, strict=True)) / (norms[0] * norms[1]), *norms


@pytest.mark.parametrize("modalities", [2, 3])
def test_cosines_and_norms_are_those_of_backward_passes(modalities: int) -> None:
    model = Many(modalities).double()
    tensors = [t.double() if t.is_floating_point() else t for t in data(50, modalities)]
    with model.subject(scores=eq.Ablation()) as subject:
        found = gradients(subject, loader_of(tensors, 16))
    batches = list(loader_of(tensors, 16))
    for name in LETTERS[:modalities]:
        by_hand = torch.tensor([slow(model, batch, name) for batch in batches]).double().T
        for of, values in zip((found.cosine, found.joint, found.unimodal), by_hand, strict=True):
            expected, given = few_interval(values), of[name]
            assert given is not None
            assert given.value == pytest.approx(expected.value, rel=1e-5)
            assert given.low == pytest.approx(expected.low, rel=1e-5, abs=1e-7)
            assert given.high == pytest.approx(expected.high, rel=1e-5, abs=1e-7)
    assert found.batches == 4
    json.dumps(found.to_dict(), allow_nan=False)


def test_gradients_of_the_user_are_left_alone() -> None:
    model = Many(2)
    kept = {}
    for index, parameter in enumerate(model.encoders["a"].parameters()):
        parameter.grad = torch.full_like(parameter, index + 1.0)
        kept[parameter] = parameter.grad
    with model.subject() as subject:
        gradients(subject, [data(20, 2)])
    for parameter in model.parameters():
        assert parameter.grad is kept.get(parameter)
    assert all((g == i + 1).all() for i, g in enumerate(kept.values()))


def test_modalities_that_pull_apart_have_a_cosine_of_minus_one() -> None:
    """The first votes for the class alone, and against it beside the second."""
    target = torch.zeros(8, dtype=torch.int64)
    a = torch.tensor([1.0, 0.0]).expand(8, 2)
    with Through(2, Sum()).subject(scores=eq.Ablation()) as subject:
        same = gradients(subject, [(a, a, target)])
    assert same.cosine["a"] is not None
    assert same.cosine["a"].value == pytest.approx(1)

    class Against(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.where((b == 0).all(), a, b - a)

    with Through(2, Against()).subject(scores=eq.Ablation()) as subject:
        apart = gradients(subject, [(a, 3 * a, target)])
    assert apart.cosine["a"] is not None
    assert apart.cosine["a"].value == pytest.approx(-1)


def test_frozen_encoders_have_no_entry_and_zero_gradients_no_cosine() -> None:
    model = Many(3)
    model.encoders["b"].requires_grad_(False)
    with model.subject() as subject:
        found = gradients(subject, [data(20, 3)])
    assert set(found.cosine) == set(found.joint) == {"a", "c"}
    deaf = Through(2, Sum())
    zeros = torch.zeros(6, 3)
    with deaf.subject(scores=eq.Ablation()) as subject:
        dead = gradients(subject, [(zeros, torch.randn(6, 3), torch.arange(6) % 3)])
    assert dead.cosine["a"] is None
    assert dead.joint["a"].value == 0
    json.dumps(dead.to_dict(), allow_nan=False)


def test_what_has_no_gradient_is_refused() -> None:
    model = Many(2)
    model.encoders.requires_grad_(False)
    with (
        model.subject() as subject,
        pytest.raises(eq.SetupError, match="no encoder has trainable parameters of its own"),
    ):
        gradients(subject, [data(20, 2)])

    def detached(features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: f.detach()[:, :3] for name, f in features.items()}

    sample = (torch.randn(6, 3), torch.randn(6, 3), torch.arange(6) % 3)
    with Through(2, Sum()).subject(scores=detached) as subject:
        with pytest.raises(
            eq.SetupError, match="unimodal loss of a does not depend on a trainable"
        ):
            gradients(subject, [sample])
        with pytest.raises(eq.SetupError, match="the loader gave no batch"):
            gradients(subject, [])
