"""What is found of models whose use of modalities is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from equimodal.diagnostics import blind as room
from equimodal.diagnostics.blind import AS_IS, Condition, Scores, UnableError
from equimodal.errors import SetupError

blind = partial(room.blind, resamples=200)


def pairs(samples: int, seed: int = 0) -> list[dict[str, Any]]:
    """A picture and a word of one bit each; the answer is whether they differ."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (samples, 2), generator=generator).tolist()
    return [{"image": torch.full((2, 2), a), "text": "ab"[b], "answer": a ^ b} for a, b in bits]


def seen(sample: dict[str, Any]) -> int:
    return int(sample["image"][0, 0]) if "image" in sample else 0


def told(sample: dict[str, Any]) -> int:
    return int(sample.get("text") == "b")


def both(samples: list[dict[str, Any]], condition: Condition) -> Scores:
    answers = [seen(s) ^ told(s) for s in samples]
    right = [float(a == s["answer"]) for a, s in zip(answers, samples, strict=True)]
    return Scores({"accuracy": torch.tensor(right)}, answers)


def words_alone(samples: list[dict[str, Any]], condition: Condition) -> Tensor:
    return torch.tensor([0.2 + 0.6 * told(s) for s in samples])


def test_a_model_that_ignores_its_picture_is_said_to_with_an_interval_without_use() -> None:
    found = blind(words_alone, pairs(60))
    assert found.verdict("image").word == "ignored"
    for fill in ("other", "blank", "mean", "removed"):
        assert found.moved(Condition((("image", fill),))).high < 1e-12
    assert found.verdict("text").word != "ignored"


def test_of_one_that_needs_both_each_is_used_with_an_interval_above_0() -> None:
    found = blind(both, pairs(80))
    for name in ("image", "text"):
        assert found.verdict(name).word == "used"
        assert found.lost(Condition(((name, "other"),))).low > 0.2
    assert found.level() == found.level(AS_IS)
    assert found.level().value == 1.0


def test_noise_of_no_benefit_is_neither_use_nor_none() -> None:
    def reacts(samples: list[dict[str, Any]], condition: Condition) -> Tensor:
        return torch.tensor([0.5 + 0.2 * ((seen(s) + n) % 2) for n, s in enumerate(samples)])

    found = blind(reacts, pairs(64))
    assert found.verdict("image").word == "undecided"
    assert found.verdict("text").word == "ignored"


def test_a_modality_that_does_harm_is_called_so() -> None:
    def distracted(samples: list[dict[str, Any]], condition: Condition) -> Tensor:
        return torch.tensor([0.9 - 0.5 * (seen(s) == s["answer"]) for s in samples])

    given = [{**s, "answer": seen(s)} for s in pairs(60)]
    found = blind(distracted, given)
    assert found.verdict("image").word == "harmful"


def test_numbers_are_those_of_a_slow_twin() -> None:
    samples = pairs(37, seed=3)
    found = blind(both, samples, batch_size=5, fills=["blank", "removed"])
    for condition in found.values:
        right = []
        for s in samples:
            a = seen(s) if condition.of("image") is None else 0
            b = told(s) if condition.of("text") is None else 0
            right.append(float(a ^ b == s["answer"]))
        assert found.of(condition).tolist() == right
        assert found.same[condition].tolist() == [r == 1.0 for r in right]
        assert found.level(condition).value == pytest.approx(sum(right) / 37)
        assert found.lost(condition).value == pytest.approx(1 - sum(right) / 37)


def test_shapley_values_are_means_over_orders_and_sum_to_what_is_there() -> None:
    samples = [
        {**s, "wrist": torch.full((2, 2), n % 2)} for n, s in enumerate(pairs(40, seed=1))
    ]  # two cameras and words

    def score(given: list[dict[str, Any]], condition: Condition) -> Tensor:
        wrist = [int(s["wrist"][0, 0]) if "wrist" in s else 0 for s in given]
        return torch.tensor(
            [0.1 + 0.2 * seen(s) + 0.3 * told(s) * w for s, w in zip(given, wrist, strict=True)]
        )

    names = ["image", "wrist", "text"]
    found = blind(score, samples, names, fills=["removed"])
    values = found.shapley()
    assert values is not None
    table = torch.zeros(3, 40, dtype=torch.float64)
    for order in itertools.permutations(range(3)):
        there: set[int] = set()
        for joining in order:
            before = found.of(found.plan.only("removed", *(names[n] for n in there)))
            there = {*there, joining}
            after = found.of(found.plan.only("removed", *(names[n] for n in there)))
            table[joining] += (after - before) / 6
    torch.testing.assert_close(values.values["removed"], table)
    none = found.of(found.plan.only("removed"))
    torch.testing.assert_close(values.values["removed"].sum(0), found.of(AS_IS) - none)


def test_text_dominance_is_text_alone_minus_the_rest() -> None:
    found = blind(words_alone, pairs(50), fills=["removed"])
    text, image = (found.of(found.plan.only("removed", name)) for name in ("text", "image"))
    dominance = found.dominance("removed")
    assert dominance is not None
    assert dominance.value == pytest.approx(float((text - image).mean()))
    assert dominance.low > 0


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_change_nothing(size: int) -> None:
    whole, parts = blind(both, pairs(30)), blind(both, pairs(30), batch_size=size)
    assert whole.to_dict() == parts.to_dict()


def test_whom_the_model_follows_is_counted_with_an_interval_that_knows_few() -> None:
    told_so = [{**s, "says": {"image": "see", "text": "read"}} for s in pairs(12)]

    def score(samples: list[dict[str, Any]], condition: Condition) -> Tensor:
        return torch.tensor([0.9 if s["answer"] == "read" else 0.1 for s in samples])

    found = blind(score, told_so)
    shares = found.conflicts.shares
    assert (shares["text"].value, shares["image"].value) == (1.0, 0.0)
    assert 0.7 < shares["text"].low < 0.8
    assert found.samples == 0
    assert "follows" in str(found)


def test_at_most_two_batches_of_samples_are_open_at_once() -> None:
    """A batch, and the samples that stand for it under 'other'."""
    import weakref

    class Picture(torch.Tensor):
        pass

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Lazy(Sequence[dict[str, Any]]):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, place: Any) -> Any:
            nonlocal most
            if place >= 64:
                raise IndexError
            picture = torch.full((2, 2), float(place % 2)).as_subclass(Picture)
            alive.add(picture)
            most = max(most, len(alive))
            return {"image": picture, "text": "ab"[place % 2], "answer": 0}

    blind(words_alone, Lazy(), batch_size=4)
    assert most <= 10


def test_what_a_model_cannot_be_asked_is_left_out_with_its_reason() -> None:
    def needy(samples: list[dict[str, Any]], condition: Condition) -> Scores:
        if condition.of("image") == "removed":
            raise UnableError("it wants a picture")
        return both(samples, condition)

    found = blind(needy, pairs(20))
    assert found.unable["image removed"] == "it wants a picture"
    assert Condition((("image", "removed"),)) not in found.values
    assert "removed" not in (found.shapley() or pytest.fail("no values")).values
    with pytest.raises(SetupError, match="image removed: there are no scores: it wants a picture"):
        found.level(Condition((("image", "removed"),)))
    assert "Not asked: image removed" in str(found)


def test_many_modalities_are_asked_one_by_one() -> None:
    samples = [{f"camera {n}": torch.rand(2) for n in range(7)} for _ in range(6)]
    calls = []

    def score(given: list[dict[str, Any]], condition: Condition) -> Tensor:
        calls.append(condition)
        return torch.ones(len(given))

    found = blind(score, samples, fills=["blank"])
    assert len(set(calls)) == 2 + 7 + 7
    assert found.shapley() is None


def test_alike_others_are_said() -> None:
    same = [{**s, "text": "a"} for s in pairs(30)]
    found = blind(both, same)
    assert any("100% of the samples have the same text" in note for note in found.notes)
    assert found.moved(Condition((("text", "other"),))).high == 0.0
    assert found.verdict("text").word == "ignored"  # of removed words, which this model takes for a
    assert "text removed" in found.verdict("text").text
    assert blind(both, same, fills=["other"]).verdict("text").word == "undecided"


def test_a_page_is_at_most_80_columns_wide() -> None:
    page = str(blind(both, pairs(40), data="a-very-long-name-" * 6 + ".jsonl"))
    assert max(map(len, page.splitlines())) <= 80
    assert "USED: image" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fills": ["blnk"]}, "unknown fill 'blnk': did you mean 'blank'"),
        ({"fills": "blank"}, "fills: expected some of blank, mean"),
        ({"fills": []}, "fills: expected some of"),
        ({"batch_size": 0}, "batch_size: expected 1 or more, found 0"),
        ({"modalities": ["image", "sound"]}, "sample 0: expected image, sound, found no sound"),
        ({"modalities": "image"}, "modalities: expected entries of the samples"),
    ],
)
def test_wrong_use_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        blind(both, pairs(8), **change)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (pairs(1), "samples: expected two or more, found 1"),
        ([1, 2], "samples: expected mappings, found int"),
        ([*pairs(3), {"text": "a", "answer": 1}], "sample 3: expected image, text, found no image"),
        ([{"image": 3, "answer": 1}] * 3, "a modality: expected text, a PIL image"),
        (
            [*pairs(3), {**pairs(1)[0], "says": {"image": 1}}],
            "sample 3: says: expected the answers of two modalities",
        ),
        (
            [*pairs(3), {**pairs(1)[0], "says": {"image": 1, "text": 1}}],
            "says: expected answers that differ",
        ),
    ],
)
def test_wrong_samples_are_refused(samples: Any, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        blind(both, samples)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (torch.ones(3), r"expected score of shape \(8,\), found \(3,\)"),
        (torch.full((8,), torch.nan), "score that is infinite or NaN"),
        ([1.0] * 8, r"expected score of shape \(8,\), found list"),
    ],
)
def test_scores_that_do_not_fit_are_refused(values: Any, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        blind(lambda samples, condition: values, pairs(8))
