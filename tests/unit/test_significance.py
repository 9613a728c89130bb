"""Chance, harm, power and ranks, each against SciPy, a brute-force twin or a simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

import equimodal as eq
from equimodal.compare.ranks import ranked
from equimodal.compare.significance import holm, seeds_needed, seen, sign_flip, t_test
from equimodal.compare.statistics import crossed, harm

SOME = [
    [0.01, 0.02, -0.01, 0.03, 0.02],
    [0.5, -0.5],
    [0.0, 0.0, 0.01],
    [-0.02, -0.01, -0.03, -0.02, -0.01, -0.04, -0.02, -0.05],
]


@pytest.mark.parametrize("values", SOME)
def test_sign_flip_is_the_share_of_all_signs(values: list[float]) -> None:
    signs = list(itertools.product([-1, 1], repeat=len(values)))
    far = sum(
        abs(sum(s * v for s, v in zip(each, values, strict=True))) >= abs(sum(values)) - 1e-12
        for each in signs
    )
    assert sign_flip(values) == far / len(signs)
    theirs = stats.permutation_test(
        (np.array(values),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(values) == pytest.approx(theirs.pvalue)


def test_few_seeds_cannot_go_below_their_number_of_signs() -> None:
    assert sign_flip([0.1, 0.2, 0.15, 0.3, 0.1]) == 1 / 16
    assert sign_flip([0.1] * 8) == 1 / 128
    assert sign_flip([]) == t_test([]) == t_test([0.3]) == 1.0


def test_drawn_signs_come_near_all_of_them() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, size=18)
    signs = 1 - 2 * ((np.arange(2**18)[:, None] >> np.arange(18)) & 1)
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
    assert sign_flip(values.tolist()) == pytest.approx(exact, abs=0.01)


def test_tests_hold_their_level_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    studies = rng.standard_t(4, size=(1500, 8)).tolist()
    for test in (sign_flip, t_test):
        assert np.mean([test(study) < 0.05 for study in studies]) < 0.05 + 3 * 0.0057


@pytest.mark.parametrize("values", SOME)
def test_t_test_is_that_of_scipy(values: list[float]) -> None:
    assert t_test(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_equal_differences_are_not_taken_for_certainty() -> None:
    """One test sample more with every seed: no spread to go by, and yet only five seeds."""
    assert t_test([0.005] * 5) == 1 / 16


@pytest.mark.parametrize("chances", [[0.01, 0.04, 0.03], [0.2], [0.5, 0.5, 0.001, 0.02], []])
def test_holm_is_the_smallest_level_at_which_a_method_is_rejected(chances: list[float]) -> None:
    given = {str(place): p for place, p in enumerate(chances)}

    def rejected(level: float) -> set[str]:
        """Step down, as Holm wrote it."""
        names = sorted(given, key=lambda name: given[name])
        out: set[str] = set()
        for place, name in enumerate(names):
            if given[name] > level / (len(names) - place):
                break
            out.add(name)
        return out

    found = holm(given)
    assert list(found) == list(given)
    for name, p in found.items():
        assert name in rejected(p + 1e-9)
        if p < 1:
            assert name not in rejected(p - 1e-9)


def test_holm_over_methods_that_do_nothing_errs_in_one_study_of_twenty() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(800):
        joint = rng.normal(size=8)
        chances = {m: sign_flip((rng.normal(size=8) - joint).tolist()) for m in "abc"}
        wrong += any(p < 0.05 for p in holm(chances).values())
    assert wrong / 800 < 0.05 + 3 * 0.0077


@pytest.mark.parametrize(
    ("seeds", "samples", "spread"), [(3, 60, 0.05), (5, 120, 0.02), (8, 80, 0.0)]
)
def test_crossed_intervals_cover_for_other_seeds_and_samples(
    seeds: int, samples: int, spread: float
) -> None:
    rng = np.random.default_rng(seeds)
    both = only = 0
    for _ in range(800):
        table = 0.02 + spread * rng.normal(size=(seeds, 1)) + 0.3 * rng.normal(size=(1, samples))
        table = table + 0.4 * rng.normal(size=(seeds, samples))
        found = crossed(table.tolist())
        both += found.low <= 0.02 <= found.high
        half = stats.t.ppf(0.975, seeds - 1) * table.mean(axis=1).std(ddof=1) / seeds**0.5
        only += abs(table.mean() - 0.02) <= half
    assert both / 800 > 0.95 - 3 * 0.0077
    assert only < both  # an interval over seeds alone does not see that samples were drawn


def test_crossed_variance_is_that_of_the_mean_squares() -> None:
    table = np.random.default_rng(0).normal(size=(4, 9)) + np.arange(9)
    mean, rows, columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    seeds = 9 * sum((r - mean) ** 2 for r in rows) / 3
    samples = 4 * sum((c - mean) ** 2 for c in columns) / 8
    rest = sum((table[s, n] - rows[s] - columns[n] + mean) ** 2 for s in range(4) for n in range(9))
    rest /= 24
    together = seeds + samples - rest
    freedom = together**2 / (seeds**2 / 3 + samples**2 / 8 + rest**2 / 24)
    half = stats.t.ppf(0.975, freedom) * (together / 36) ** 0.5
    found = crossed(table.tolist())
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))


def test_crossed_never_says_less_than_seeds_do_and_takes_what_has_no_spread() -> None:
    same = crossed([[1.0, 1.0], [1.0, 1.0]])
    assert (same.low, same.high) == (1.0, 1.0)
    one = crossed([[1.0, 0.0, 1.0]])
    assert one.mean == pytest.approx(2 / 3)
    assert np.isnan(one.low)


def test_harm_is_what_happens() -> None:
    """Of studies that look alike, so many have a mean below 0, and so many further trainings."""
    rng = np.random.default_rng(0)
    said, below, single = [], [], []
    for _ in range(4000):
        true = rng.normal(0, 0.02)  # as wide as what is not known beforehand
        found = harm(rng.normal(true, 0.01, size=6).tolist())
        said.append((found.average, found.single))
        below.append(true < 0)
        single.append(rng.normal(true, 0.01) < 0)
    for place, happened in ((0, below), (1, single)):
        likely = np.array([each[place] for each in said])
        for low, high in ((0.0, 0.1), (0.1, 0.4), (0.4, 1.0)):
            part = (likely >= low) & (likely < high)
            assert np.mean(np.array(happened)[part]) == pytest.approx(likely[part].mean(), abs=0.05)
    assert harm([0.1, 0.1]).average == 0
    assert harm([0.0, 0.0]).single == 0.5
    assert np.isnan(harm([0.1]).average)


@pytest.mark.parametrize(("spread", "effect"), [(1.0, 1.0), (0.02, 0.01), (3.0, 2.0)])
def test_so_many_seeds_see_it_four_times_of_five(spread: float, effect: float) -> None:
    needed = seeds_needed(spread, effect)
    rng = np.random.default_rng(0)

    def power(seeds: int) -> float:
        drawn = rng.normal(effect, spread, size=(20_000, seeds))
        return float(np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05))

    assert power(needed) > 0.79
    assert power(needed - 1) < 0.81
    assert seen(spread, needed) <= effect <= seen(spread, needed - 1)


def test_needs_at_the_ends() -> None:
    assert seeds_needed(0.0, 0.01) == 2
    assert seeds_needed(1.0, 0.001) == 1000
    assert seeds_needed(0.001, 1.0) == 2 or seeds_needed(0.001, 1.0) == 3
    assert seen(0.0, 8) == 0.0
    with pytest.raises(ValueError, match="expected an effect above 0"):
        seeds_needed(1.0, 0.0)


def test_ranks_by_hand_and_by_scipy() -> None:
    rng = np.random.default_rng(0)
    table = {
        f"set {n}": dict(zip("abcd", rng.normal(size=4).tolist(), strict=True)) for n in range(6)
    }
    table["set 0"]["b"] = table["set 0"]["a"]  # a tie
    found = ranked(table)
    for name in "abcd":
        ranks = []
        for scores in table.values():
            better = sum(other > scores[name] for other in scores.values())
            equal = sum(other == scores[name] for other in scores.values())
            ranks.append(better + (equal + 1) / 2)
        assert found.mean[name] == pytest.approx(sum(ranks) / 6)
    columns = [[scores[name] for scores in table.values()] for name in "abcd"]
    assert found.p == pytest.approx(stats.friedmanchisquare(*columns).pvalue)


@pytest.mark.parametrize(("methods", "quantile"), [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_is_that_of_demsars_table(methods: int, quantile: float) -> None:
    names = [f"m{n}" for n in range(methods)]
    scores = {f"s{n}": {name: float(place) for place, name in enumerate(names)} for n in range(14)}
    found = ranked(scores)
    assert found.critical == pytest.approx(
        quantile * (methods * (methods + 1) / (6 * 14)) ** 0.5, rel=1e-3
    )
    assert not found.alike(names[0], names[-1])


def test_ranks_refuse_what_they_cannot_rank() -> None:
    three = {"a": 1.0, "b": 2.0, "c": 3.0}
    with pytest.raises(eq.SetupError, match="three methods on two data sets"):
        ranked({"one": three})
    with pytest.raises(eq.SetupError, match=r"the same methods on all data sets: c \(two\)"):
        ranked({"one": three, "two": {"a": 1.0, "b": 1.0}})
    same = {"a": 1.0, "b": 1.0, "c": 1.0}
    assert ranked({"one": same, "two": same}).p == 1.0
