"""OGM and OGM-GE against the loop that a user would write by hand."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch

import equimodal as eq
from support import slow
from support.worlds import World, batch, train, weights


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 0), (3, 1)])
@pytest.mark.parametrize("enhanced", [False, True])
def test_equals_the_hand_written_loop(modalities: int, seed: int, enhanced: bool) -> None:
    batches = [batch(20, modalities, seed=10 * seed + step) for step in range(8)]
    by_hand = World(modalities, seed=seed)
    history = slow.hand_written_ogm(
        by_hand.model,
        by_hand.optimizer,
        batches,
        functools.partial(slow.thresholded, alpha=0.8),
        enhanced,
    )
    world = World(modalities, seed=seed)
    train(world.balance(eq.OGMGE(0.8) if enhanced else eq.OGM(0.8)), batches)
    assert any(k < 1 for ks in history for k in ks)
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("coefficient", "twin"),
    [
        (eq.Continuous(), functools.partial(slow.continuous, alpha=0.7)),
        (eq.TwoSided(beta=1.8), functools.partial(slow.two_sided, alpha=0.7, beta=1.8)),
    ],
)
def test_other_coefficients(coefficient: Any, twin: Any) -> None:
    batches = [batch(20, 3, seed=seed) for seed in range(5)]
    by_hand, world = World(3), World(3)
    slow.hand_written_ogm(by_hand.model, by_hand.optimizer, batches, twin)
    train(world.balance(eq.OGM(0.7, coefficient=coefficient)), batches)
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


def test_a_leader_that_is_far_ahead_is_stopped_and_not_turned_round() -> None:
    """TwoSided(beta) falls below 0 above beta 2, and a negative factor climbs the loss."""
    far = torch.tensor([20.0, 0.1], dtype=torch.float64).log()
    evidence = eq.Evidence(("audio", "visual"), far, [24])
    wide = eq.TwoSided(beta=4.0)
    assert wide(evidence.ratios, 0.8).amin() < 0
    assert eq.OGM(0.8, coefficient=wide).coefficients(evidence)[0] == 0
    assert eq.OGM(0.8, coefficient=wide, floor=0.2).coefficients(evidence)[0] == 0.2


def test_all_parameters_and_floor() -> None:
    batches = [batch(20, seed=seed) for seed in range(5)]
    by_hand, world = World(), World()
    slow.hand_written_ogm(
        by_hand.model,
        by_hand.optimizer,
        batches,
        lambda ratio: max(0.4, slow.thresholded(ratio, 0.8)),
        chosen=lambda parameter: True,
    )
    train(world.balance(eq.OGM(0.8, floor=0.4, parameters="all")), batches)
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


def test_smoothing_is_a_running_mean_of_the_scores() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.5, smoothing=0.9), track_every=1)
    means: dict[str, float] = {}
    for seed in range(6):
        train(balancer, [batch(seed=seed)])
        metrics = balancer.metrics()
        for name in balancer.names:
            score = metrics[f"evidence/{name}"]
            means[name] = 0.9 * means.get(name, score) + 0.1 * score
        expected = slow.thresholded(means["audio"] / means["visual"], 0.5)
        assert metrics["coefficient/audio"] == pytest.approx(expected, rel=1e-9)


def test_the_window_holds_both_ends() -> None:
    world = World()
    balancer = world.balance(eq.OGMGE(0.8, window=(1, 2)))
    plain = World()
    reference = plain.balance(eq.Joint())
    differs = []
    for epoch in range(4):
        plain.model.load_state_dict(world.model.state_dict())
        plain.optimizer.load_state_dict(copy.deepcopy(world.optimizer.state_dict()))
        train(balancer, [batch(seed=epoch)])
        train(reference, [batch(seed=epoch)])
        differs.append(not torch.equal(weights(world.model), weights(plain.model)))
        balancer.end_epoch()
    assert differs == [False, True, True, False]


def test_generalisation_enhancement_alone_is_ogm_ge_with_coefficient_one() -> None:
    batches = [batch(seed=seed) for seed in range(4)]
    alone, whole = World(), World()
    train(alone.balance(eq.GE()), batches)
    train(whole.balance(eq.OGMGE(0.0)), batches)  # 1 - tanh(0) is 1
    assert torch.equal(weights(alone.model), weights(whole.model))


def test_composed_of_its_halves_in_any_order() -> None:
    batches = [batch(seed=seed) for seed in range(4)]
    worlds = [World() for _ in range(3)]
    train(worlds[0].balance(eq.OGMGE(0.8)), batches)
    train(worlds[1].balance(eq.OGM(0.8), eq.GE()), batches)
    train(worlds[2].balance(eq.GE(), eq.OGM(0.8)), batches)
    assert torch.equal(weights(worlds[0].model), weights(worlds[1].model))
    assert torch.equal(weights(worlds[0].model), weights(worlds[2].model))


def test_acts_on_chosen_modalities_only() -> None:
    batches = [batch(seed=seed) for seed in range(4)]
    free, chosen = World(), World()
    leader = "visual"  # its inputs are shifted more
    train(free.balance(eq.Joint()), batches)
    follower = next(name for name in free.encoders if name != leader)
    balancer = chosen.balance(eq.OGM(0.8, modalities=[follower]), track_every=1)
    ratios = []
    for each in batches:
        train(balancer, [each])
        ratios.append(balancer.metrics()[f"ratio/{follower}"])
    if all(ratio <= 1 for ratio in ratios):  # then nobody is throttled
        assert torch.equal(weights(free.model), weights(chosen.model))
    assert any(ratio <= 1 for ratio in ratios)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: eq.OGM(-1), ["OGM(alpha)", "-1"]),
        (lambda: eq.OGMGE(math.nan), ["OGMGE(alpha)", "nan"]),
        (lambda: eq.OGM(math.inf), ["alpha", "inf"]),
        (lambda: eq.OGM(floor=2), ["floor", "2"]),
        (lambda: eq.OGM(smoothing=1), ["smoothing", "1"]),
        (lambda: eq.OGM(space="updates"), ["updates", "did you mean 'update'"]),
        (lambda: eq.OGM(parameters="convolution"), ["did you mean 'convolutions'"]),
        (lambda: eq.OGM(window=(3, 1)), ["window", "(3, 1)"]),
        (lambda: eq.TwoSided(beta=0.5), ["beta", "0.5"]),
        (lambda: eq.TwoSided(beta=math.inf), ["beta", "inf"]),
        (lambda: eq.TwoSided(damping=-1.0), ["damping", "-1.0"]),
        (lambda: eq.ElementNoise(decay=1.0), ["decay", "1.0"]),
        (lambda: eq.MultiLoss(-1.0), ["MultiLoss", "-1.0"]),
    ],
)
def test_bad_settings_are_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
