"""Each rule of the advice, on diagnoses made by hand, on either side of its edge."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from equimodal.diagnostics.advice import signs
from equimodal.diagnostics.advice.diagnosis import Diagnosis, Reading, Together
from equimodal.diagnostics.advice.rules import (
    FEWEST,
    MENDING,
    RULES,
    THROTTLING,
    UNUSED,
    WIDE,
    advise,
)
from equimodal.diagnostics.advice.throttling import spelt, throttling
from equimodal.diagnostics.advice.verdicts import VERDICTS, Advice
from equimodal.diagnostics.interval import Interval
from equimodal.methods.ogm_ge_map import Standing, standing

NAMES = ("audio", "visual", "text")


def near(value: float, width: float = 0.02) -> Interval:
    return Interval(value, value - width / 2, value + width / 2)


def together(promise: Interval, refit: Interval | None = None, over: float = 0.1) -> Together:
    return Together(near(0.8), near(0.8), promise, refit or near(0.0), near(over))


def made(modalities: int = 2, **changes: Any) -> Diagnosis:
    """A diagnosis of a model in which nothing is wrong, with some things changed."""
    names = NAMES[:modalities]
    found = Diagnosis(
        model="Model",
        data="data",
        split="val",
        samples=1000,
        classes=("a", "b", "c", "d"),
        modalities=names,
        chance=0.25,
        accuracy=near(0.8),
        above_chance=near(0.5),
        subsets={},
        shapley={},
        read={name: Reading("mean", near(0.6), near(0.35), tells=True) for name in names},
        leading="audio",
        behind={name: near(0.0) for name in names[1:]},
        trainable=dict.fromkeys(names, 100),
        agreement={},
        utilisation={},
        calibration={},
        discrepancy={},
        cost={},
        probes={name: near(0.65) for name in names},
        alone={name: near(0.65) for name in names},
        alone_tells=dict.fromkeys(names, True),
        gap={name: near(0.0) for name in names},
        shortfall={name: near(0.05) for name in names},
        together=together(near(0.0)),
    )
    return replace(found, **changes)


def lost(**gaps: Interval) -> dict[str, Any]:
    """Gaps by which an encoder is held back."""
    return {"gap": {"audio": near(0.0), "visual": near(0.0), **gaps}}


def unused(name: str = "visual") -> dict[str, Any]:
    """A modality that the head reads no more than chance from."""
    read = dict(made().read)
    read[name] = Reading("mean", near(0.25), near(0.0), tells=False)
    return {"read": read, "behind": {name: near(0.4)}}


def verdict(**changes: Any) -> str:
    return advise(made(**changes)).verdict


def test_nothing_wrong_is_balanced() -> None:
    found = advise(made())
    assert found.verdict == "balanced"
    assert not found.ignored
    assert not found.next


# ------------------------------------------------------------------ nothing can be said


@pytest.mark.parametrize(("samples", "said"), [(FEWEST - 1, "cannot tell"), (FEWEST, "balanced")])
def test_few_samples(samples: int, said: str) -> None:
    assert verdict(samples=samples) == said


@pytest.mark.parametrize(("low", "said"), [(0.0, "cannot tell"), (0.001, "balanced")])
def test_a_model_no_better_than_the_largest_class(low: float, said: str) -> None:
    assert verdict(above_chance=Interval(0.02, low, 0.04)) == said


def test_without_encoders_trained_alone_nothing_is_said_but_what_is_ignored() -> None:
    found = advise(made(alone=None, alone_tells=None, gap=None, together=None, **unused()))
    assert found.verdict == "cannot tell"
    assert found.ignored == ("visual",)
    assert "diagnostics.alone" in found.next[0]


def test_a_gap_that_may_be_large_is_not_called_balanced() -> None:
    edge = WIDE / 2
    assert verdict(**lost(visual=Interval(0.0, -0.1, edge))) == "balanced"
    found = advise(made(**lost(visual=Interval(0.0, -0.1, edge + 0.001))))
    assert found.verdict == "cannot tell"
    assert "visual" in found.summary


# ------------------------------------------------------------------ do not balance


def test_frozen_encoders() -> None:
    assert verdict(trainable={"audio": 0, "visual": 0}, **unused()) == "do not balance"
    assert verdict(trainable={"audio": 0, "visual": 1}) == "balanced"


def silent(*names: str, modalities: int = 2) -> dict[str, Any]:
    """Modalities of which neither an encoder trained alone nor a probe makes anything."""
    known = NAMES[:modalities]
    return {
        "alone_tells": {name: name not in names for name in known},
        "probes": {name: near(0.3 if name in names else 0.65) for name in known},
    }


def test_one_modality_that_tells_anything() -> None:
    found = advise(made(**silent("visual"), **unused()))
    assert found.verdict == "do not balance"
    assert found.summary.startswith("audio is the only modality")
    assert not found.ignored, "who has nothing to say is not ignored"


def test_no_modality_that_tells_anything_alone() -> None:
    found = advise(made(**silent("audio", "visual")))
    assert found.verdict == "do not balance"
    assert "combination" in found.summary


@pytest.mark.parametrize(("low", "said"), [(0.301, "unimodal losses"), (0.299, "do not balance")])
def test_what_a_probe_reads_is_told_however_briefly_it_was_trained_alone(
    low: float, said: str
) -> None:
    """The most frequent class has 30%: accuracy 80, 50 above it."""
    changes: dict[str, Any] = {
        **silent("visual"),
        "probes": {"audio": near(0.65), "visual": Interval(0.4, low, 0.5)},
        "together": together(near(0.0), near(0.1)),
    }
    assert verdict(**changes, **unused()) == said


def test_of_three_a_silent_one_does_not_speak_for_the_others() -> None:
    changes = silent("text", modalities=3)
    assert advise(made(3, **changes)).verdict == "balanced"
    gap = {"audio": near(0.0), "visual": near(0.2), "text": near(0.2)}
    found = advise(made(3, gap=gap, together=together(near(0.1)), **changes))
    assert found.verdict == "unimodal losses"
    assert "visual" in found.summary
    assert "text" not in found.summary


@pytest.mark.parametrize(
    ("high", "said"), [(0.019, "do not balance"), (0.02, "try balancing"), (0.05, "try balancing")]
)
def test_better_encoders_that_would_bring_nothing(high: float, said: str) -> None:
    promise = Interval(0.0, -0.02, high)
    assert verdict(together=together(promise), **lost(visual=near(0.1))) == said
    assert verdict(together=together(promise), **unused()) == said


def test_a_single_modality_as_good_as_the_model_is_named() -> None:
    changes = {"alone": {"audio": near(0.8), "visual": near(0.5)}, "together": together(near(0.0))}
    assert "audio alone" in advise(made(**changes, **unused())).next[0]
    changes["alone"] = {"audio": near(0.79), "visual": near(0.5)}
    assert advise(made(**changes, **unused())).next == ("keep joint training",)


# ------------------------------------------------------------------ unimodal losses


@pytest.mark.parametrize(("low", "said"), [(0.001, "unimodal losses"), (0.0, "try balancing")])
def test_better_encoders_that_would_make_a_better_model(low: float, said: str) -> None:
    changes = {"together": together(Interval(0.05, low, 0.1)), **lost(visual=near(0.1))}
    assert verdict(**changes) == said


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        (Interval(signs.LOST, 0.001, 0.04), "unimodal losses"),
        (Interval(signs.LOST - 0.001, 0.001, 0.04), "balanced"),
        (Interval(0.05, 0.0, 0.09), "balanced"),
    ],
)
def test_when_an_encoder_counts_as_held_back(gap: Interval, said: str) -> None:
    assert verdict(together=together(near(0.1)), **lost(visual=gap)) == said


@pytest.mark.parametrize(
    ("refit", "said"),
    [
        (Interval(0.02, 0.001, 0.04), "unimodal losses"),
        (Interval(0.019, 0.001, 0.04), "do not balance"),
        (Interval(0.05, 0.0, 0.1), "do not balance"),
    ],
)
def test_a_head_that_leaves_something_unused(refit: Interval, said: str) -> None:
    changes = {"together": together(near(0.0), refit)}
    found = advise(made(**changes, **unused()))
    assert found.verdict == said
    assert found.ignored == ("visual",)


@pytest.mark.parametrize(
    ("refit", "said"),
    [
        (Interval(0.02, 0.001, 0.04), "unimodal losses"),
        (Interval(0.019, 0.001, 0.04), "balanced"),
        (Interval(0.05, 0.0, 0.1), "balanced"),
    ],
)
def test_a_head_that_leaves_something_unused_of_a_modality_that_is_not_ignored(
    refit: Interval, said: str
) -> None:
    found = advise(made(together=together(near(0.0), refit)))
    assert found.verdict == said
    assert found.ignored == ()
    assert not set(UNUSED) & set(found.next)


@pytest.mark.parametrize(("high", "said"), [(-0.101, "cannot tell"), (-0.1, "balanced")])
def test_encoders_alone_that_are_worse_than_probes_are_no_reference(high: float, said: str) -> None:
    gap = Interval(-0.2, -0.3, high)
    assert verdict(together=None, **lost(visual=gap)) == said
    assert verdict(together=together(near(0.1)), **lost(visual=gap)) == said
    assert verdict(together=together(near(0.0)), **lost(visual=gap)) == "balanced", "shown"


# ------------------------------------------------------------------ try balancing


def test_a_gap_without_a_known_gain_is_worth_a_try() -> None:
    found = advise(made(together=None, **lost(visual=near(0.1))))
    assert found.verdict == "try balancing"
    assert set(MENDING) | set(THROTTLING) == set(found.next)


def test_a_leader_that_lost_something_is_not_slowed_down() -> None:
    found = advise(made(together=None, **lost(audio=near(0.1), visual=near(0.1))))
    assert found.verdict == "try balancing"
    assert not set(THROTTLING) & set(found.next)
    assert any(reason.text.startswith("audio leads, and is") for reason in found.because)


def test_what_to_expect_of_ogm_ge_is_said_where_it_is_named_and_nowhere_else() -> None:
    """One reason quotes the map: how often it was better, and where."""
    expected = throttling()
    joint, multi_loss = standing("joint"), standing("multi-loss")
    assert f"in {joint.cells} settings of a study" in expected.text
    assert f"worse in {len(multi_loss.worse)} and {len(joint.worse)}" in expected.text
    assert f"better than multi-loss in {spelt(multi_loss)}" in expected.text
    assert f"than joint training in {spelt(joint)}" in expected.text
    cases = [
        lost(visual=near(0.1)),
        lost(audio=near(0.1), visual=near(0.1)),
        {"together": together(near(0.1)), **lost(visual=near(0.1))},
        {},
    ]
    for changes in cases:
        found = advise(made(**{"together": None, **changes}))
        assert found.because.count(expected) == ("ogm-ge" in found.next)


@pytest.mark.parametrize(
    ("better", "kept", "said"),
    [
        (0, 0, "none"),
        (4, 4, "4, by at most 6.2 points"),
        (4, 1, "4, by at most 6.2 points, of which 1 remained with larger learning rates for all"),
        (
            4,
            0,
            "4, by at most 6.2 points, of which none remained with larger learning rates for all",
        ),
    ],
)
def test_regions_of_the_map_are_spelt_out(better: int, kept: int, said: str) -> None:
    assert spelt(Standing(40, tuple("abcd"[:better]), (), kept, 6.2, 0.0)) == said


@pytest.mark.parametrize(("width", "said"), [(WIDE, "try balancing"), (0.201, "cannot tell")])
def test_a_gain_that_is_not_known_at_all(width: float, said: str) -> None:
    promise = Interval(0.05, -0.05, round(-0.05 + width, 3))
    assert verdict(together=together(promise), **lost(visual=near(0.1))) == said


# ------------------------------------------------------------------ who is ignored


@pytest.mark.parametrize(
    ("low", "behind", "is_ignored"),
    [
        (signs.FAR + 0.001, near(0.1), True),
        (signs.FAR, near(0.1), False),
        (0.3, near(0.01), False),
    ],
)
def test_read_far_below_and_used_less(low: float, behind: Interval, is_ignored: bool) -> None:
    shortfall = {"audio": near(0.3), "visual": Interval(0.35, low, 0.4)}
    found = advise(made(shortfall=shortfall, behind={"visual": behind}))
    assert found.ignored == (("visual",) if is_ignored else ())
    assert ("audio" in found.ignored) is False, "the leading modality is not ignored"


def test_conflict_of_gradients_is_said() -> None:
    cosine = {"audio": None, "visual": {"value": -0.2, "low": -0.3, "high": -0.1}}
    found = advise(made(together=None, gradients={"cosine": cosine}, **lost(visual=near(0.1))))
    (reason,) = [each for each in found.because if "pull apart" in each.text]
    assert reason.evidence["cosine"] == Interval(-0.2, -0.3, -0.1)


# ------------------------------------------------------------------ the advice itself


def test_advice_is_a_function_of_the_numbers() -> None:
    found = made(**unused())
    assert advise(found) == advise(replace(found, advice=advise(made())))


def test_a_command_compares_the_methods_that_are_advised() -> None:
    found = advise(made(together=None, **lost(visual=near(0.1))), "equimodal compare watch")
    named = ",".join((*MENDING, *THROTTLING))
    assert found.next[-1] == f"equimodal compare watch '--methods=[{named}]'"
    assert advise(made(), "equimodal compare watch").next == ()


def test_choosing_is_asked_about_what_it_does_not_try_anyway() -> None:
    found = advise(made(together=None, **lost(visual=near(0.1))), "equimodal choose mine:model")
    named = ",".join((*MENDING, *THROTTLING)).replace("multi-loss,", "")
    assert found.next[-1] == f"equimodal choose mine:model '--methods=[{named}]'"


def test_a_gap_that_rests_on_a_mere_accuracy_tells_nothing() -> None:
    """However large it is: its error is not known. Of the others it is."""
    bare = Interval(0.4, math.nan, math.nan)
    found = advise(made(together=None, **lost(visual=bare)), "equimodal compare watch")
    assert found.verdict == "cannot tell"
    assert "what visual would reach alone is not known" in found.summary
    assert found.next == (
        "give for each sample whether it is right alone, or a function that trains it",
    )
    assert found.because[0].evidence == {"visual": bare}
    assert advise(made(together=None, **lost(visual=near(0.4)))).verdict == "try balancing"


def test_where_encoders_alone_are_what_lacks_the_command_trains_them() -> None:
    given = {"compare": "equimodal compare watch", "again": "equimodal diagnose run"}
    assert advise(made(gap=None), **given).next == ("equimodal diagnose run",)
    assert "equimodal diagnose run" not in advise(made(samples=1), **given).next


def test_every_verdict_comes_from_a_rule_and_every_rule_can_decide() -> None:
    cases = [
        made(samples=1),
        made(above_chance=near(0.0)),
        made(trainable={"audio": 0, "visual": 0}),
        made(gap=None),
        made(**silent("visual")),
        made(together=together(near(0.0), near(0.1)), **unused()),
        made(),
        made(**unused()),
        made(together=together(near(0.1)), **lost(visual=near(0.1))),
        made(together=together(near(0.1, 0.3)), **unused()),
        made(together=None, **unused()),
    ]
    first = [next(rule for rule in RULES if rule(case) is not None) for case in cases]
    assert first == list(RULES)
    assert {advise(case).verdict for case in cases} == set(VERDICTS)


@pytest.mark.parametrize("changes", [{}, unused(), lost(visual=near(0.1))])
def test_advice_comes_back_from_json(changes: dict[str, Any]) -> None:
    found = advise(made(**changes))
    assert Advice.from_dict(json.loads(json.dumps(found.to_dict()))) == found
