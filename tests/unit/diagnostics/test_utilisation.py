"""Conditional utilisation, discrepancy ratios and per-sample gaps, against slow twins."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.contributions.subsets import subsets
from equimodal.diagnostics.contributions.utilisation import utilisation
from equimodal.diagnostics.interval import few_interval, interval
from equimodal.diagnostics.outputs.discrepancy import QUANTILES, discrepancy
from support.subjects import LETTERS, Many, Sum, Through, data, loader_of


@pytest.mark.parametrize("modalities", [2, 3])
@torch.no_grad()
def test_the_rate_is_the_share_of_the_accuracy_that_is_lost_without(modalities: int) -> None:
    model, tensors = Many(modalities), data(80, modalities)
    with model.subject() as subject:
        found = utilisation(subject, loader_of(tensors, 16), fills=["zero", "mean"])
    features = model.features(tensors[:-1])
    for name in LETTERS[:modalities]:
        for fill in ("zero", "mean"):
            other = torch.zeros(5) if fill == "zero" else features[name].mean(dim=0)
            without = {**features, name: other.expand(80, 5)}
            right, rest = (
                [
                    float(row.argmax() == label)
                    for row, label in zip(logits, tensors[-1], strict=True)
                ]
                for logits in (model.head(*features.values()), model.head(*without.values()))
            )

            def rate(rows: Tensor, right: list[float] = right, rest: list[float] = rest) -> Tensor:
                all_of = sum(right[i] for i in rows.tolist())
                but = sum(rest[i] for i in rows.tolist())
                return torch.tensor((all_of - but) / all_of, dtype=torch.float64)

            expected = interval(80, rate)
            rates = found.rates[fill][name]
            for end in ("value", "low", "high"):
                assert getattr(rates, end) == pytest.approx(getattr(expected, end), abs=1e-12)
    json.dumps(found.to_dict(), allow_nan=False)


def test_subsets_that_are_known_are_not_read_again() -> None:
    tensors = data(60, 2)
    with Many(2).subject() as subject:
        known = subsets(subject, loader_of(tensors), fills=["mean"])
        expected = utilisation(subject, loader_of(tensors), fills=["mean"])
    assert utilisation(subject, [], known=known) == expected


def test_redundant_modalities_have_no_use_and_a_needed_one_has_all() -> None:
    target = torch.arange(90) % 3
    votes = 5.0 * nn.functional.one_hot(target, 3)
    with Through(2, Sum()).subject() as subject:
        twice = utilisation(subject, [(votes, votes, target)], fills=["zero"])
        once = utilisation(subject, [(votes, torch.zeros_like(votes), target)], fills=["zero"])
    assert twice.rates["zero"]["a"].value == twice.rates["zero"]["b"].value == 0
    # Without it the first class is predicted, which is right for a third.
    assert once.rates["zero"]["a"].value == pytest.approx(2 / 3)
    assert once.rates["zero"]["b"].value == 0


def test_the_rate_of_nothing_is_undefined() -> None:
    target = torch.zeros(10, dtype=torch.int64)
    wrong = torch.tensor([0.0, 1.0]).expand(10, 2)
    with Through(2, Sum()).subject(scores=eq.Ablation()) as subject:
        found = utilisation(subject, [(wrong, wrong, target)], fills=["mean"])
    assert math.isnan(found.rates["mean"]["a"].value)


# ---------------------------------------------------------------- discrepancy


@pytest.mark.parametrize("modalities", [2, 3])
@torch.no_grad()
def test_ratios_are_those_of_the_paper_and_gaps_those_of_single_samples(modalities: int) -> None:
    model, tensors = Many(modalities), data(50, modalities)
    names = LETTERS[:modalities]
    with model.subject(scores=eq.Ablation()) as subject:
        found = discrepancy(subject, loader_of(tensors, 16))
    features = model.features(tensors[:-1])
    probability: dict[str, list[float]] = {}
    for name in names:
        alone = [f if n == name else torch.zeros_like(f) for n, f in features.items()]
        softmax = model.head(*alone).softmax(dim=1).tolist()
        probability[name] = [row[y] for row, y in zip(softmax, tensors[-1].tolist(), strict=True)]
    for row, name in enumerate(names):
        others = [n for n in names if n != name]

        def ratio(rows: list[int], name: str = name, others: list[str] = others) -> float:
            rest = sum(probability[n][i] for n in others for i in rows) / len(others)
            return sum(probability[name][i] for i in rows) / rest

        assert found.ratio[name].value == pytest.approx(ratio(list(range(50))), rel=1e-5)
        expected = interval(50, lambda rows: torch.tensor(ratio(rows.tolist())).double())
        assert found.ratio[name].low == pytest.approx(expected.low, rel=1e-5)
        assert found.ratio[name].high == pytest.approx(expected.high, rel=1e-5)
        batches = [ratio(list(range(s, min(s + 16, 50)))) for s in range(0, 50, 16)]
        by_batch = few_interval(torch.tensor(batches, dtype=torch.float64))
        assert found.batch_ratio[name].value == pytest.approx(by_batch.value, rel=1e-5)
        assert found.batch_ratio[name].low == pytest.approx(by_batch.low, rel=1e-5)
        logs = [math.log(p) for p in probability[name]]
        gaps = [
            logs[i] - sum(math.log(probability[n][i]) for n in others) / len(others)
            for i in range(50)
        ]
        assert found.values[row].tolist() == pytest.approx(logs, rel=1e-4)
        for given, by_hand in ((found.log_probability[name], logs), (found.gap[name], gaps)):
            ranked = sorted(by_hand)
            # The nearest rank, of two equally near ones either.
            for value, q in zip(given, QUANTILES, strict=True):
                near = [ranked[math.floor(q * 49)], ranked[math.ceil(q * 49)]]
                assert min(abs(value - each) for each in near) < 1e-4
    json.dumps(found.to_dict(), allow_nan=False)


def test_means_are_those_of_the_data_not_of_batches_of_one_class() -> None:
    """A batch's own mean would tell its class, and every modality would seem to know it."""
    *inputs, target = data(60)
    order = target.argsort()
    tensors = [each[order] for each in (*inputs, target)]
    whole, by_class = [tensors], [[each[target[order] == c] for each in tensors] for c in range(4)]
    with Many(3).subject(scores=eq.Ablation("mean")) as subject:
        one, other = (discrepancy(subject, loader).values for loader in (whole, by_class))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_equal_modalities_have_a_ratio_of_one() -> None:
    target = torch.arange(30) % 3
    same = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    with Through(2, Sum()).subject() as subject:
        found = discrepancy(subject, [(same, same, target)])
    assert found.ratio["a"].value == found.ratio["a"].low == found.ratio["a"].high == 1
    assert found.gap["a"] == [0.0] * len(QUANTILES)


def test_huge_losses_do_not_underflow_and_ignored_samples_do_not_count() -> None:
    target = torch.tensor([0, 1, -100, 0])
    far = torch.tensor([[-2e3, 0], [0, -2e3], [9.0, 9.0], [-2e3, 0]])
    with Through(2, Sum()).subject(scores=eq.Ablation()) as subject:
        found = discrepancy(subject, [(far, far + torch.tensor([0, 1.0]), target)])
    assert found.values.shape == (2, 3)
    # Losses of 2000, and of 2001 or 1999 by class: e^0 against (2 e^-1 + e^1)/3.
    assert found.ratio["a"].value == pytest.approx(3 / (2 * math.exp(-1) + math.e), rel=1e-4)
    with (
        Through(2, Sum()).subject(scores=eq.Ablation()) as subject,
        pytest.raises(eq.SetupError, match="no sample that has something to predict"),
    ):
        discrepancy(subject, [(far[:1], far[:1], target[2:3])])
