"""Accuracies of subsets, against a slow twin and where the truth is known."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.contributions.fills import Shuffled, make_fills
from equimodal.diagnostics.contributions.subsets import subsets
from equimodal.diagnostics.interval import mean_interval, mean_intervals
from equimodal.diagnostics.subject import Subject
from support.subjects import LETTERS, Many, Sum, Through, data, loader_of


def powerset(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [s for size in range(len(names) + 1) for s in itertools.combinations(names, size)]


@torch.no_grad()
def slow(model: Many, tensors: list[Tensor], kept: tuple[str, ...], others: Any) -> list[float]:
    """Whether each sample is right, one sample after the other."""
    features = model.features(tensors[:-1])
    found = []
    for i, label in enumerate(tensors[-1].tolist()):
        rows = [f[i : i + 1] if n in kept else others(n, i)[None] for n, f in features.items()]
        found.append(float(model.head(*rows).argmax() == label))
    return found


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_subsets_are_those_of_the_slow_twin(modalities: int) -> None:
    model, tensors = Many(modalities), data(50, modalities)
    batches = loader_of(tensors, 16)
    with torch.no_grad():
        features = model.features(tensors[:-1])
    with model.subject() as subject:
        found = subsets(subject, batches, seed=3)
        partners = make_fills(["shuffled"], subject, batches, seed=3)["shuffled"]
    assert isinstance(partners, Shuffled)
    zero = lambda name, i: torch.zeros(5)  # noqa: E731
    mean = lambda name, i: features[name].mean(dim=0)  # noqa: E731
    for kept in powerset(tuple(LETTERS[:modalities])):
        row = found.members.index(kept)
        assert found.values["zero"][row].tolist() == slow(model, tensors, kept, zero)
        assert found.values["mean"][row].tolist() == slow(model, tensors, kept, mean)
        by_draw = [
            slow(model, tensors, kept, lambda n, i, rows=rows: features[n][rows[i]])
            for rows in partners.partners.tolist()
        ]
        expected = [sum(each) / 4 for each in zip(*by_draw, strict=True)]
        assert found.values["shuffled"][row].tolist() == expected
        for fill in ("zero", "mean", "shuffled"):
            assert found.of(fill, *reversed(kept)) == mean_interval(found.values[fill][row])


def test_batches_and_their_order_make_no_difference() -> None:
    model, tensors = Many(3), data(50)
    with model.subject() as subject:
        whole = subsets(subject, loader_of(tensors, 50))
        small = subsets(subject, loader_of(tensors, 7))
        turned = subsets(subject, loader_of(tensors, 7, shuffle=True))
    for fill in ("zero", "mean", "shuffled"):
        assert torch.equal(whole.values[fill], small.values[fill])
    for fill in ("zero", "mean"):
        assert torch.equal(
            whole.values[fill].sort(dim=1).values, turned.values[fill].sort(dim=1).values
        )


def test_intervals_of_rows_are_those_of_each() -> None:
    values = torch.rand(3, 40, generator=torch.Generator().manual_seed(0))
    for row, found in zip(values, mean_intervals(values, 200), strict=True):
        one = mean_interval(row, 200)
        assert (found.value, found.low, found.high) == pytest.approx((one.value, one.low, one.high))
    with pytest.raises(eq.SetupError, match="one sample or more, found none"):
        mean_intervals(values[:, :0])


def test_encoders_run_once_for_a_batch_and_pass() -> None:
    model, tensors = Many(3), data(40)
    times = dict.fromkeys(model.encoders, 0)

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            times[name] += 1

        return hook

    handles = [e.register_forward_hook(count(n)) for n, e in model.encoders.items()]
    with model.subject() as subject:
        next(iter(subject.steps(loader_of(tensors))))  # finds out which feature is which
        times.update(dict.fromkeys(times, 0))
        subsets(subject, loader_of(tensors, 10), fills=("zero",))
        assert set(times.values()) == {4}
        subsets(subject, loader_of(tensors, 10))
        assert set(times.values()) == {4 + 8}
    for handle in handles:
        handle.remove()


def test_what_an_idle_modality_is_worth() -> None:
    """Features are logits that are added up: a tells the class, b is always the same."""
    target = torch.arange(4).repeat(25)
    a, b = nn.functional.one_hot(target, 4).float(), torch.tensor([0.0, 0.5, 0.0, 0.0])
    with Through(2, Sum()).subject() as subject:
        found = subsets(subject, loader_of([a, b.expand(100, -1), target], 30))
    for fill in ("zero", "mean"):
        assert found.of(fill, "a", "b").value == found.of(fill, "a").value == 1
        assert found.of(fill).value == 0.25  # one class for all
        assert found.of(fill, "b").value == 0.25
    assert found.of("shuffled", "b") == found.of("shuffled")
    # Every other sample is of the class in 24 of 99 cases.
    assert found.of("shuffled", "b").value == pytest.approx(24 / 99, abs=0.1)
    gap = found.versus("zero", ["a", "b"], ["a"])
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    assert found.versus("zero", ["a"], []).low > 0.6


class Early(nn.Module):
    """No head: what the encoders return is fused within the model."""

    def __init__(self, like: Many) -> None:
        super().__init__()
        self.encoders, self.late = like.encoders, like.head

    def forward(self, *inputs: Tensor) -> Tensor:
        encoded = [e(x) for e, x in zip(self.encoders.values(), inputs, strict=True)]
        logits: Tensor = self.late(*encoded)
        return logits


def test_a_model_without_a_head_is_read_as_a_whole() -> None:
    model, tensors = Many(3), data(40)
    early = Early(model)
    with model.subject() as subject:
        expected = subsets(subject, loader_of(tensors))
    encoders = dict(early.encoders.items())
    with Subject(early, encoders, None, scores=eq.Ablation()) as subject:
        found = subsets(subject, loader_of(tensors))
    for fill, values in expected.values.items():
        assert torch.equal(found.values[fill], values)


class ByName(nn.Module):
    """A head that takes a dict, and changes it in place."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.inner = head

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        for feature in features.values():
            feature.clamp_(min=-0.5)  # again makes no difference, but to who shares the tensor
        logits: Tensor = self.inner(*features.values())
        return logits


def test_a_head_may_write_into_its_features() -> None:
    class Host(Many):
        def forward(self, *inputs: Tensor) -> Tensor:
            logits: Tensor = self.head({n: f.clone() for n, f in self.features(inputs).items()})
            return logits

    inner = Many(3).head
    model, tensors = Host(3, head=ByName(inner)), data(40)
    settings = {"features": lambda given: given}
    with model.subject(**settings) as subject:
        found = subsets(subject, loader_of(tensors, 40), fills=("mean",))
        again = subsets(subject, loader_of(tensors, 10), fills=("mean",))
    assert torch.equal(found.values["mean"], again.values["mean"])


def test_samples_without_a_target_do_not_count() -> None:
    model, tensors = Many(3), data(40)
    tensors[-1][::3] = -100
    counted = tensors[-1] != -100
    with model.subject(criterion=nn.CrossEntropyLoss(ignore_index=-100)) as subject:
        found = subsets(subject, loader_of(tensors), fills=("zero",))
        kept = subsets(subject, loader_of([t[counted] for t in tensors]), fills=("zero",))
        assert found.samples == int(counted.sum())
        assert torch.equal(found.values["zero"], kept.values["zero"])
        tensors[-1][:] = -100
        with pytest.raises(eq.SetupError, match="one sample or more, found none"):
            subsets(subject, loader_of(tensors), fills=("zero",))


def test_the_metric_is_the_users() -> None:
    model, tensors = Many(3, classes=1), data(40)
    tensors[-1] = tensors[0][:, 0]
    error = lambda logits, target: -(logits.squeeze(1) - target).abs()  # noqa: E731
    with model.subject(criterion=nn.L1Loss()) as subject:
        found = subsets(subject, loader_of(tensors), metric=error, fills=("zero",))
        with pytest.raises(
            eq.SetupError, match=r"expected logits of shape \(B, classes\).*metric="
        ):
            subsets(subject, loader_of(tensors), fills=("zero",))
        whole = lambda logits, target: error(logits, target).mean()  # noqa: E731
        with pytest.raises(eq.MatchError, match=r"one value per sample.*macro-F1"):
            subsets(subject, loader_of(tensors), metric=whole, fills=("zero",))
    with torch.no_grad():
        expected = error(model(*tensors[:-1]), tensors[-1]).mean()
    assert found.of("zero", "a", "b", "c").value == pytest.approx(float(expected))


def test_several_labels_are_no_probabilities_of_classes() -> None:
    model, tensors = Many(3), data(40)
    classes = tensors[-1]
    tensors[-1] = nn.functional.one_hot(classes, 4).float()
    with model.subject() as subject:
        soft = subsets(subject, loader_of(tensors), fills=("zero",))
        hard = subsets(subject, loader_of([*tensors[:-1], classes]), fills=("zero",))
        assert torch.equal(soft.values["zero"], hard.values["zero"])
        tensors[-1][:, 0] = 1
        with pytest.raises(eq.SetupError, match="metric="):
            subsets(subject, loader_of(tensors), fills=("zero",))


def test_of_many_modalities_a_part_of_the_subsets_is_read() -> None:
    model, tensors = Many(9), data(20, 9)
    with model.subject() as subject:
        found = subsets(subject, loader_of(tensors), fills=("zero",))
    assert len(found.members) == 1 + 9 + 9 + 1
    assert found.of("zero", *"abcdefgh").value == found.intervals["zero"][18].value
    assert found.of("zero", *LETTERS[:9]).value == found.intervals["zero"][-1].value


def test_a_head_that_draws_is_refused() -> None:
    class Noisy(Sum):
        def forward(self, *features: Tensor) -> Tensor:
            return super().forward(*features) + torch.randn(4)

    tensors = data(20, 2)
    inputs = [torch.randn(20, 4), torch.randn(20, 4)]
    with (
        Through(2, Noisy()).subject() as subject,
        pytest.raises(eq.MatchError, match=r"returned other logits.*something random"),
    ):
        subsets(subject, loader_of([*inputs, tensors[-1]]))


def test_json_names_the_subsets() -> None:
    with Many(2).subject() as subject:
        found = subsets(subject, loader_of(data(20, 2)))
    written = json.loads(json.dumps(found.to_dict()))
    assert set(written) == {"zero", "mean", "shuffled"}
    assert list(written["zero"]) == ["", "a", "b", "a+b"]
    assert written["mean"]["a+b"]["value"] == found.of("mean", "a", "b").value
    assert set(written["mean"]["a+b"]) == {"value", "low", "high"}
