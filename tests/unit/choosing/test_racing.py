"""Plans, races and decisions, with made-up scores in place of trainings."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import equimodal as eq
from equimodal.choosing.candidate import (
    JOINT,
    RATES,
    Candidate,
    Trial,
    baselines,
    candidates,
    modulates_only,
    trials,
)
from equimodal.choosing.decide import decide
from equimodal.choosing.late import weighed, weights_on
from equimodal.choosing.plan import RICHEST_FIRST, Plan, planned
from equimodal.choosing.race import Entrant, Raced, race
from equimodal.methods import available
from equimodal.search import Choice, EachModality, Linear, Log

MODALITIES = ("sound", "picture")
BASE = baselines(MODALITIES)


def made_up(count: int) -> list[Candidate]:
    return [Candidate(f"m{n}", (("ogm", {}),)) for n in range(count)]


class World:
    """Scores follow from row, rate and seed: a mean, what the seed does to all, and noise."""

    def __init__(self, means: dict[str, float], spread: float = 0.0, seed: int = 0) -> None:
        self.means, self.spread, self.seed = means, spread, seed
        self.runs: list[tuple[Trial, int]] = []
        self.fails: Callable[[Trial], bool] = lambda trial: False

    def score(self, trial: Trial, seed: int) -> float:
        rng = np.random.default_rng([self.seed, seed])
        shared = rng.normal(0, self.spread)
        label = trial.candidate.label
        own = np.random.default_rng(
            [self.seed, seed, *label.encode(), int(1000 * trial.rate)]
        ).normal(0, self.spread)
        worse = 0.01 * abs(np.log2(trial.rate / 2.0))  # all are best at twice the rate
        return float(self.means.get(label, 0.5) - worse + shared + own)

    def train(self, runs: Sequence[tuple[Trial, int]]) -> list[float | None]:
        self.runs += runs
        return [None if self.fails(t) else self.score(t, s) for t, s in runs]

    def decided(self, raced: Raced, plan: Plan) -> str:
        """Confirm and decide, and return the winner."""

        def fresh(row: Entrant) -> list[float]:
            return [self.score(row.trial, 1000 + n) for n in range(plan.fresh)]

        best, *others = sorted(map(fresh, raced.joints), key=fmean, reverse=True)
        rows = [*raced.finalists, *raced.others(plan.held - 1)]
        return decide({JOINT: best, **{r.label: fresh(r) for r in rows}}, others).winner


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 38])
@pytest.mark.parametrize("budget", [None, 110, 200])
def test_a_race_costs_what_was_said_before(count: int, budget: int | None) -> None:
    plan = planned(count, len(BASE), budget)
    if budget is not None:
        assert plan.cost <= budget
    entered = made_up(count)
    world = World({})
    raced = race(plan, BASE, entered, MODALITIES, world.train)
    confirmed = len(raced.joints) + plan.held - 1 + len(raced.finalists)
    spent = len(world.runs) + confirmed * plan.fresh
    assert spent == plan.cost
    assert str(plan.cost) in str(plan)
    assert plan.candidates + plan.left_out == count
    assert len(raced.finalists) == plan.finalists
    tries = Counter(t.candidate.label for t, s in world.runs if s == 0)
    assert max(tries[c.label] for c in entered[: plan.candidates]) <= min(
        tries[b.label] for b in BASE
    ), "no method was searched harder than a baseline"


def test_the_richest_plan_that_can_be_afforded_is_taken() -> None:
    whole = planned(20, 6)
    assert planned(20, 6, whole.cost) == planned(20, 6, whole.cost + 1000) or (
        planned(20, 6, whole.cost).search == whole.search == RICHEST_FIRST[0][0]
    )
    assert planned(20, 6, whole.cost - 1).search < whole.search
    poor = planned(20, 6, 90)
    assert poor.left_out > 0
    assert "are left out" in str(poor)
    with pytest.raises(eq.SetupError, match=r"--budget: expected \d+ trainings or more, found 10"):
        planned(20, 6, 10)
    assert "under 2.1 points" in str(planned(6, 3, 1000))


def test_the_best_wins_and_pairs_share_their_seeds() -> None:
    means = {f"m{n}": 0.5 for n in range(12)} | {"m7": 0.7, JOINT: 0.6, "multi-loss": 0.55}
    world = World(means, spread=0.01)
    plan = planned(12, len(BASE))
    raced = race(plan, BASE, made_up(12), MODALITIES, world.train)
    assert raced.finalists[0].label == "m7"
    assert next(row.label for row in raced.others(2)) == "multi-loss"
    by_row: dict[str, set[int]] = {}
    for trial, seed in world.runs:
        by_row.setdefault(trial.candidate.label, set()).add(seed)
    last = by_row["m7"]
    finalists = [row.label for row in raced.finalists]
    assert all(by_row[label] == last for label in finalists)
    assert world.decided(raced, plan) == "m7"
    assert raced.entrants["m7"].trial.rate > 1.0, "the rate was searched"


def test_what_fails_loses_its_place_and_nobody_else_does() -> None:
    world = World({"m1": 0.9, "m2": 0.8})
    world.fails = lambda trial: (
        trial.candidate.label == "m1" or (trial.candidate.label == "m2" and trial.rate == 2.0)
    )
    raced = race(planned(5, len(BASE)), BASE, made_up(5), MODALITIES, world.train)
    assert raced.failed == ["m1"]
    assert raced.finalists[0].label == "m2"
    world.fails = lambda trial: trial.candidate.label == JOINT
    with pytest.raises(eq.SetupError, match="joint training failed"):
        race(planned(5, len(BASE)), BASE, made_up(5), MODALITIES, world.train)


def test_where_nothing_helps_joint_training_is_recommended() -> None:
    """200 studies, from the first round to the decision."""
    plan = planned(10, len(BASE), 130)
    others = 0
    for study in range(200):
        world = World({}, spread=0.02, seed=study)
        raced = race(plan, BASE, made_up(10), MODALITIES, world.train)
        others += world.decided(raced, plan) != JOINT
    assert others / 200 <= 0.05


def test_where_one_helps_it_is_found() -> None:
    plan = planned(10, len(BASE), 150)
    found = 0
    for study in range(40):
        world = World({"m3": 0.56}, spread=0.015, seed=study)
        raced = race(plan, BASE, made_up(10), MODALITIES, world.train)
        found += world.decided(raced, plan) == "m3"
    assert found / 40 > 0.8


def test_a_modality_alone_may_win() -> None:
    scores = {JOINT: [0.5, 0.52, 0.51, 0.5, 0.5, 0.53, 0.5], "sound alone": [0.7] * 7}
    assert decide(scores).winner == "sound alone"
    assert decide({JOINT: [0.5] * 7, "a": [0.5] * 7}).winner == JOINT
    assert decide({JOINT: [0.5] * 7, "a": [0.5] * 7}).alike == ["a"]


def test_compositions_follow_the_written_rule() -> None:
    labels = {candidate.label for candidate in candidates(10)}
    pairs = {label for label in labels if "+" in label}
    assert {"ogm+multi-loss", "ogm-ge+multi-loss", "ge+multi-loss"} <= pairs
    for pair in pairs:
        name, partner = pair.split("+")
        assert partner == "multi-loss"
        kind = available()[name]
        assert modulates_only(kind)
        assert kind.objective is eq.Method.objective
        assert kind.predict is eq.Method.predict
    assert not labels & {"joint", "multi-loss", "ensemble", "unimodal"}
    (named,) = candidates(10, ["ogm-ge+multi-loss"])
    assert [name for name, _ in named.methods] == ["ogm-ge", "multi-loss"]
    with pytest.raises(eq.SetupError, match="did you mean 'ogm'"):
        candidates(10, ["ogn"])


def test_trials_begin_with_defaults_and_do_not_depend_on_each_other() -> None:
    for candidate in [*BASE, *candidates(10)]:
        tried = trials(candidate, 8, MODALITIES)
        assert [t.rate for t in tried[: len(RATES)]] == list(RATES)
        assert trials(candidate, 5, MODALITIES) == tried[:5]
        assert len({(t.rate, str(t.options)) for t in tried}) >= 7  # two may be rounded alike
        assert all(0.25 <= t.rate <= 4 for t in tried)
        for trial in tried:
            for name, options in trial.methods():
                assert set(options) <= {
                    *available()[name].search,
                    *available()[name].by_epochs,
                    "modality",
                }


@pytest.mark.parametrize(
    "space", [Linear(1.0, 2.0), Log(0.1, 10.0), Choice(1, 2, 3), EachModality(0.1, 0.3)]
)
def test_spaces_are_covered_from_end_to_end(space: Linear | Log | Choice | EachModality) -> None:
    found = [space.at(n / 60, MODALITIES) for n in range(60)]
    if isinstance(space, Linear | Log):
        assert found[0] == pytest.approx(space.low)
        assert found == sorted(found)
        assert space.low <= max(found) < space.high
        assert space.at(0.999999, ()) == pytest.approx(space.high, rel=1e-4)
    else:
        counted = Counter(map(str, found))
        assert len(set(counted.values())) == 1, "each as often as the others"
        several = len(MODALITIES) if isinstance(space, EachModality) else 1
        assert len(counted) == len(space.values) * several


def test_late_fusion_finds_the_weights_by_trying_all_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (200,), generator=generator)
    good = 2.0 * torch.eye(3)[target] + torch.randn(200, 3, generator=generator)
    bad = torch.randn(200, 3, generator=generator)

    def score(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.argmax(1) == targets).double()

    alone = {"sound": good, "picture": bad}
    found = weights_on(alone, target, score, F.cross_entropy)
    assert sum(found.values()) == pytest.approx(1.0)
    best = max(
        fmean(score(a * good.log_softmax(1) + (1 - a) * bad.log_softmax(1), target).tolist())
        for a in (n / 10 for n in range(11))
    )
    assert fmean(score(weighed(alone, found, F.cross_entropy), target).tolist()) == best
    assert weights_on({"a": good, "b": good}, target, score, F.cross_entropy) == {
        "a": 0.5,
        "b": 0.5,
    }
    three = weights_on({"a": bad, "b": good, "c": bad}, target, score, F.cross_entropy)
    assert three["b"] == max(three.values())


@pytest.mark.parametrize(
    "name", [name for name, kind in available().items() if kind.search], ids=lambda name: str(name)
)
def test_every_value_of_a_declared_space_makes_the_method(name: str) -> None:
    """At both ends and in the middle; what a run supplies is given."""
    kind = available()[name]
    given: dict[str, object] = {argument: value(10) for argument, value in kind.by_epochs.items()}
    if "teachers" in inspect.signature(kind).parameters:
        given["teachers"] = {each: torch.nn.Identity() for each in MODALITIES}
    assert set(kind.search) <= set(inspect.signature(kind).parameters)
    for argument, space in kind.search.items():
        for share in (0.0, 0.5, 0.9999):
            kind(**{**given, **_needed(kind), argument: space.at(share, MODALITIES)})


def _needed(kind: type[eq.Method]) -> dict[str, object]:
    return {
        argument: space.at(0.5, MODALITIES)
        for argument, space in kind.search.items()
        if inspect.signature(kind).parameters[argument].default is inspect.Parameter.empty
    }


def test_the_weight_of_the_plain_baseline_is_searched_like_any_other() -> None:
    multi_loss = next(each for each in BASE if each.label == "multi-loss")
    weights = {str(t.options) for t in trials(multi_loss, 8, MODALITIES)}
    assert len(weights) == 6
    assert sum(bool(kind.search) for kind in available().values()) > 20
