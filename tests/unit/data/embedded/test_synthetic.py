"""The controlled data set: its truth by brute force, and samples that agree with it."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pytest
import torch

from equimodal import data
from equimodal.data import Synthetic
from equimodal.data.embedded.synthetic import DEFAULT, JITTER
from equimodal.errors import SetupError

CASES = [
    Synthetic({"a": 0.9, "b": 0.4}, classes=3),
    Synthetic({"a": 0.9, "b": 0.4}, classes=3, redundancy=0.7, synergy=0.2),
    Synthetic({"a": 0.2, "b": 0.6, "c": 0.6}, classes=2, redundancy=1.0, synergy=0.5),
    Synthetic({"a": 0.5, "b": 0.0, "c": 1.0}, classes=3, redundancy=0.3, synergy=0.1),
    Synthetic({"only": 0.3}, classes=4, synergy=0.25),
]


def by_hand(dials: Synthetic, chosen: list[int]) -> float:
    """The accuracy of the best classifier, by going through everything that can happen.

    The number that modalities share matters only by which shares it lies below.
    """
    shares, classes = list(dials.informativeness.values()), dials.classes
    probability: dict[tuple, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    edges = sorted({0.0, 1.0, *shares})
    pieces = [(low, high - low) for low, high in itertools.pairwise(edges)]

    def note(label: int, symbols: tuple, share: float) -> None:
        probability[tuple(symbols[at] for at in chosen)][label] += share / classes

    for label in range(classes):
        for symbols in itertools.product(range(classes), repeat=len(shares)):
            if sum(symbols) % classes == label:
                note(label, symbols, dials.synergy / classes ** (len(shares) - 1))
        for low, width in pieces:
            symbols = tuple(label if low < share else None for share in shares)
            note(label, symbols, (1 - dials.synergy) * dials.redundancy * width)
        for informed in itertools.product([True, False], repeat=len(shares)):
            share = (1 - dials.synergy) * (1 - dials.redundancy)
            for knows, p in zip(informed, shares, strict=True):
                share *= p if knows else 1 - p
            note(label, tuple(label if knows else None for knows in informed), share)
    return sum(max(labels.values()) for labels in probability.values())


@pytest.mark.parametrize("dials", CASES)
def test_the_best_accuracy_is_that_of_going_through_all_cases(dials):
    names = dials.modalities
    for size in range(len(names) + 1):
        for chosen in itertools.combinations(range(len(names)), size):
            expected = by_hand(dials, list(chosen))
            assert dials.optimal([names[at] for at in chosen]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dials", CASES)
def test_the_likelihood_is_one(dials):
    likelihood = dials.likelihood()
    torch.testing.assert_close(
        likelihood.flatten(1).sum(1), torch.ones(dials.classes, dtype=torch.float64)
    )


def symbols_of(dials: Synthetic, arrays) -> torch.Tensor:
    """Read symbols off the features as anyone could: by the nearest of the patterns seen."""
    read = []
    for name in dials.modalities:
        signs = (arrays.features[name] > 0).int()
        read.append(torch.unique(signs, dim=0, return_inverse=True)[1])
    return torch.stack(read, dim=1)


@pytest.mark.parametrize("dials", CASES[1:4])
def test_samples_reach_the_best_accuracy_and_no_more(dials):
    large = Synthetic(
        dials.informativeness,
        {"a": 0.01},
        dials.redundancy,
        dials.synergy,
        dials.classes,
        sizes=(20_000, 10, 20_000),
    )
    splits = large.splits()
    seen: dict[tuple, Counter] = defaultdict(Counter)
    for symbols, label in zip(
        symbols_of(large, splits.train).tolist(), splits.train.target.tolist(), strict=True
    ):
        seen[tuple(symbols)][label] += 1
    best = {symbols: labels.most_common(1)[0][0] for symbols, labels in seen.items()}
    rows = symbols_of(large, splits.test).tolist()
    right = [
        best.get(tuple(row)) == label
        for row, label in zip(rows, splits.test.target.tolist(), strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(large.optimal(), abs=0.015)


def test_symbols_stay_apart_whatever_the_jitter():
    splits = DEFAULT.splits()
    for name, speed in {"fast": 1.0, "slow": 0.02}.items():
        feature = splits.train.features[name] / speed
        assert feature.abs().min() >= 1 - JITTER - 1e-6
        assert feature.abs().max() <= 1 + JITTER + 1e-6
        assert len(torch.unique(feature.sign(), dim=0)) == DEFAULT.classes + 1


def test_it_is_the_same_every_time_and_splits_share_no_sample():
    one, other = DEFAULT.splits(), data.load("synthetic")
    assert one.fingerprint == other.fingerprint
    for part in ("train", "val", "test"):
        for name in one.modalities:
            assert torch.equal(
                getattr(one, part).features[name], getattr(other, part).features[name]
            )
    assert len({*one.train.ids.tolist(), *one.val.ids.tolist(), *one.test.ids.tolist()}) == 3000
    assert Synthetic({"a": 0.5}, seed=1).splits().fingerprint != (
        Synthetic({"a": 0.5}).splits().fingerprint
    )


def test_it_loads_by_name_with_some_modalities_and_says_what_is_best():
    splits = data.load("synthetic", modalities=("slow",))
    assert splits.modalities == ("slow",)
    assert "together 96.7%" in str(splits.card)


@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({"informativeness": {}}, "at least one modality"),
        ({"informativeness": {"a": 1.5}}, r"informativeness\['a'\]: expected 0 to 1"),
        ({"informativeness": {"a": 1.0}, "synergy": -0.1}, "synergy"),
        ({"informativeness": {"a": 1.0}, "speed": {"b": 1.0}}, "unknown modality 'b'"),
        ({"informativeness": {"a": 1.0}, "speed": {"a": 0.0}}, "above 0"),
        ({"informativeness": {"a": 1.0}, "classes": 1}, "classes: expected 2"),
        ({"informativeness": {"a": 1.0}, "dimensions": 2}, "dimensions: expected 4"),
    ],
)
def test_dials_out_of_range_are_refused(dials, words):
    with pytest.raises(SetupError, match=words):
        Synthetic(**dials)


def test_the_best_of_an_unknown_modality_is_refused():
    with pytest.raises(SetupError, match="unknown modality 'slw': did you mean 'slow'"):
        DEFAULT.optimal(["slw"])
