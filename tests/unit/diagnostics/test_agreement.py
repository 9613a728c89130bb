"""Who is right, against counting by hand; reading alone; and what chance is."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.outputs.agreement import agreement, agreement_of
from equimodal.diagnostics.outputs.chance import chance
from equimodal.diagnostics.outputs.predictions import predictions
from support.subjects import LETTERS, Many, Sum, Through, data, loader_of


def drawn(modalities: int, size: int = 400, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Predictions that are right in 80, 60, ... per cent of the cases."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (size,), generator=generator)
    labels = {}
    for m, name in enumerate(LETTERS[:modalities]):
        wrong = torch.rand(size, generator=generator) < 0.2 * (m + 1)
        labels[name] = torch.where(wrong, (target + 1) % 3, target)
    return labels, target


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_patterns_are_counted(modalities: int) -> None:
    labels, target = drawn(modalities)
    found = agreement_of(labels, target, classes=("x", "y", "z"))
    counts: dict[str, int] = {}
    by_class: dict[str, dict[str, int]] = {"x": {}, "y": {}, "z": {}}
    for i, label in enumerate(target.tolist()):
        pattern = "+".join(name for name in labels if labels[name][i] == label)
        counts[pattern] = counts.get(pattern, 0) + 1
        of = by_class["xyz"[label]]
        of[pattern] = of.get(pattern, 0) + 1
    assert {p: round(400 * i.value) for p, i in found.patterns.items()} == counts
    for label, of in by_class.items():
        size = sum(of.values())
        assert found.samples[label] == size
        assert {p: round(size * s) for p, s in found.per_class[label].items() if s} == of
        for name in labels:
            right = sum(n for p, n in of.items() if name in p.split("+"))
            assert found.accuracies[label][name] == pytest.approx(right / size)
    assert sum(i.value for i in found.patterns.values()) == pytest.approx(1)
    assert found.both == found.patterns["+".join(labels)]
    assert found.neither == found.patterns[""]
    if modalities > 1:
        assert found.only["a"] == found.patterns["a"]


def test_where_each_modality_leads() -> None:
    """Guitars are heard and shovels seen; of drums there are too few, flutes are told by both."""
    classes = ("playing guitar", "shovelling snow", "drums", "flute", "never there")
    target = torch.tensor([0] * 40 + [1] * 30 + [2] * 5 + [3] * 20)
    wrong = torch.full_like(target, 4)
    heard = (target == 0) | (target == 2) | (target == 3)
    seen = (target == 1) | (target == 3)
    heard[40:46] = True  # 20% of the snow
    labels = {
        "audio": torch.where(heard, target, wrong),
        "visual": torch.where(seen, target, wrong),
    }
    found = agreement_of(labels, target, classes=classes, smallest=6)
    (guitar,), (snow,) = found.leads["audio"], found.leads["visual"]
    assert (guitar.label, guitar.samples, guitar.gap.value) == ("playing guitar", 40, 1)
    assert (snow.label, snow.samples, snow.gap.value) == ("shovelling snow", 30, pytest.approx(0.8))
    assert 0.6 < snow.gap.low < 0.7
    assert 0.9 < snow.gap.high < 1
    assert [lead.label for lead in agreement_of(
        labels, target, classes=classes, smallest=5
    ).leads["audio"]] == ["playing guitar", "drums"]  # fmt: skip
    assert (
        len(agreement_of(labels, target, classes=classes, smallest=5, most=1).leads["audio"]) == 1
    )
    assert found.samples["never there"] == 0
    assert "never there" not in found.per_class
    written = json.loads(json.dumps(found.to_dict()))
    assert written["only"] == {"audio": pytest.approx(45 / 95), "visual": pytest.approx(24 / 95)}
    assert written["both"] == pytest.approx(26 / 95)
    assert written["neither"] == 0
    assert written["per_class"]["flute"]["both"] == 1
    assert written["leads"]["visual"][0]["class"] == "shovelling snow"
    assert written["leads"]["visual"][0]["gap"]["low"] == snow.gap.low


def test_a_lead_is_over_the_best_other() -> None:
    target = torch.zeros(20, dtype=torch.int64)
    labels = {n: (torch.arange(20) >= k).long() for n, k in {"a": 16, "b": 14, "c": 0}.items()}
    found = agreement_of(labels, target, classes=("only", "other"))
    assert found.leads["a"][0].gap.value == pytest.approx(0.1)
    assert found.leads["b"] == found.leads["c"] == ()


def test_what_does_not_fit_is_refused() -> None:
    labels, target = drawn(2)
    with pytest.raises(eq.SetupError, match=r"a name for each class, 3 or more.*found 2: x, y"):
        agreement_of(labels, target, classes=("x", "y"))
    with pytest.raises(eq.SetupError, match="none twice, found 3"):
        agreement_of(labels, target, classes=("x", "y", "x"))
    with pytest.raises(eq.SetupError, match=r"labels\['b'\].*shape \(400,\), found \(3,\)"):
        agreement_of({**labels, "b": target[:3]}, target, classes=("x", "y", "z"))
    with pytest.raises(eq.SetupError, match="one sample or more, found none"):
        agreement_of({"a": target[:0]}, target[:0], classes=("x",))


def test_alone_is_what_the_scores_read() -> None:
    linear = nn.Linear(10, 4)

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, *features: Tensor) -> Tensor:
            logits: Tensor = self.linear(torch.cat(features, dim=1))
            return logits

    model, tensors = Many(2, head=Joined()), data(50, 2)
    with model.subject() as subject:
        found = predictions(subject, loader_of(tensors))
        table = agreement(subject, loader_of(tensors))
    with torch.no_grad():
        features = model.features(tensors[:-1])
        for m, name in enumerate("ab"):
            alone = features[name] @ linear.weight[:, 5 * m : 5 * m + 5].T + linear.bias / 2
            assert torch.equal(found.alone[name].labels, alone.argmax(dim=1))
            expected = alone.softmax(dim=1).max(dim=1).values
            torch.testing.assert_close(found.alone[name].confidences, expected)
        joint = model(*tensors[:-1])
    assert torch.equal(found.joint.labels, joint.argmax(dim=1))
    labels = {name: of.labels for name, of in found.alone.items()}
    assert table == agreement_of(labels, tensors[-1], classes=tuple("0123"))
    assert list(table.samples) == list("0123")


class Product(nn.Module):
    """Each feature gates the other: zeros in place of one say nothing of the other."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


def test_the_mean_that_reads_a_gated_modality_is_that_of_the_data() -> None:
    """The mean over a batch of one class tells it, and would let b, which is idle, look able."""
    target = torch.arange(4).repeat_interleave(25)
    a, b = nn.functional.one_hot(target, 4) + 0.1, torch.ones(100, 4)
    with Through(2, Product()).subject() as subject:
        found = predictions(subject, loader_of([a, b, target], 25))
        assert type(subject.attached.scores.chosen).__name__ == "Ablation"  # type: ignore[attr-defined]
        by_batch = [step.unimodal["b"].argmax(dim=1) for step in subject.steps(
            loader_of([a, b, target], 25)
        )]  # fmt: skip
    assert (torch.cat(by_batch) == target).all()  # the leak
    right = {name: float((of.labels == target).float().mean()) for name, of in found.alone.items()}
    assert right == {"a": 1, "b": 0.25}


def test_what_cannot_be_predicted_is_refused() -> None:
    tensors = data(20, 2)
    with (
        Many(2).subject(criterion=nn.MSELoss()) as subject,
        pytest.raises(eq.MatchError, match="one class per sample"),
    ):
        predictions(subject, loader_of([*tensors[:-1], torch.zeros(20, 4)]))


def test_samples_without_a_class_do_not_count() -> None:
    tensors = data(40, 2)
    tensors[-1][::4] = -100
    with Many(2).subject() as subject:
        found = predictions(subject, loader_of(tensors))
    assert torch.equal(found.target, tensors[-1][tensors[-1] >= 0])
    assert len(found.joint.labels) == len(found.alone["a"].confidences) == 30


def test_a_constant_prediction_is_chance_exactly() -> None:
    for size in (7, 30, 101):
        target = torch.arange(size) % 3
        found = chance(torch.ones_like(target), target, classes=3, resamples=50)
        assert (found.above_independent.low, found.above_independent.high) == (0, 0)
        assert not found.tells
        assert not found.better


def test_levels_of_chance_are_those_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (200,), generator=generator)
    labels = torch.where(torch.rand(200, generator=generator) < 0.5, target, target * 0)
    found = chance(labels, target, classes=5)
    shares = [float((target == c).float().mean()) for c in range(5)]
    predicted = [float((labels == c).float().mean()) for c in range(5)]
    accuracy = float((labels == target).float().mean())
    independent = sum(p * q for p, q in zip(shares, predicted, strict=True))
    assert found.uniform == 0.2
    assert found.largest_class == pytest.approx(max(shares))
    assert found.independent == pytest.approx(independent)
    assert found.accuracy.value == pytest.approx(accuracy)
    assert found.above_independent.value == pytest.approx(accuracy - independent)
    assert found.above_largest.value == pytest.approx(accuracy - max(shares))
    assert found.tells
    assert found.better
    assert json.loads(json.dumps(found.to_dict()))["tells"] is True


def test_guesses_seldom_look_as_if_they_told_anything() -> None:
    """Two-sided intervals of 95%: one guess in forty is above by chance."""
    generator = torch.Generator().manual_seed(1)
    wrong = 0
    for _ in range(80):
        target = torch.randint(4, (100,), generator=generator)
        labels = torch.randint(4, (100,), generator=generator)
        wrong += chance(labels, target, 4, resamples=150).tells
    assert wrong <= 8


def test_who_tells_may_be_no_better_than_the_largest_class() -> None:
    target = torch.tensor([0] * 360 + [1] * 40)
    labels = target.clone()
    labels[:72], labels[360:368] = 1, 0  # 80% of either class
    found = chance(labels, target, classes=2)
    assert found.accuracy.value == 0.8
    assert found.largest_class == 0.9
    assert found.tells
    assert not found.better
    with pytest.raises(eq.SetupError, match=r"one shape \(N,\), found \(400,\) and \(3,\)"):
        chance(labels, target[:3], classes=2)


def test_idle_and_able_modalities_against_chance() -> None:
    target = torch.arange(4).repeat(25)
    a, b = nn.functional.one_hot(target, 4).float(), torch.zeros(100, 4)
    b[:, 2] = 0.5
    with Through(2, Sum()).subject(scores=eq.Ablation()) as subject:
        found = predictions(subject, loader_of([a, b, target]))
    able, idle = (chance(found.alone[n].labels, found.target, found.classes) for n in "ab")
    assert able.better
    assert not idle.tells
