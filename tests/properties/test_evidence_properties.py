"""What must hold for any shapes, modalities, dtypes and permutations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import equimodal as eq
from equimodal import functional as eqf
from support import slow
from support.worlds import World, batch, train, weights

losses = st.lists(st.floats(0, 50), min_size=1, max_size=20)
scores = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6)
alphas = st.floats(0, 5)
COEFFICIENTS = [eqf.thresholded_coefficient, eqf.continuous_coefficient, eqf.two_sided_coefficient]


def logs(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


@given(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), alphas)
def test_two_modalities_are_the_paper(pair: tuple[float, float], alpha: float) -> None:
    audio, visual = pair
    found = eqf.discrepancy_ratio(logs([audio, visual]))
    assert found[0].item() == pytest.approx(audio / visual, rel=1e-9)
    assert found[1].item() == pytest.approx(visual / audio, rel=1e-9)
    k = eqf.thresholded_coefficient(found, alpha)
    expected = [slow.thresholded(r, alpha) for r in found.tolist()]
    assert k.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert 1 in k.tolist()  # never both


@given(st.floats(-1e4, 50), st.integers(2, 8), st.sampled_from([torch.float32, torch.float64]))
def test_equal_evidence_has_ratio_exactly_one(
    log_score: float, modalities: int, dtype: torch.dtype
) -> None:
    ratio = eqf.discrepancy_ratio(torch.full((modalities,), log_score, dtype=dtype))
    assert torch.equal(ratio, torch.ones(modalities, dtype=dtype))
    for coefficient in COEFFICIENTS:
        assert torch.equal(coefficient(ratio, 0.8), torch.ones(modalities, dtype=dtype))


@given(scores, st.data())
def test_an_absent_modality_leaves_the_others_as_if_it_did_not_exist(
    values: list[float], data: st.DataObject
) -> None:
    absent = data.draw(st.integers(0, len(values)))
    without = eqf.discrepancy_ratio(logs(values))
    padded = [*values[:absent], 0.0, *values[absent:]]
    counts = torch.tensor([0.0 if i == absent else 8.0 for i in range(len(padded))])
    found = eqf.discrepancy_ratio(logs(padded), counts)
    assert found[absent].isnan()
    kept = torch.cat([found[:absent], found[absent + 1 :]])
    torch.testing.assert_close(kept, without, rtol=1e-9, atol=0)


@given(scores, st.randoms())
def test_permuted_modalities_have_permuted_ratios(values: list[float], random: object) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    ratios = eqf.discrepancy_ratio(logs(values))
    permuted = eqf.discrepancy_ratio(logs([values[i] for i in order]))
    torch.testing.assert_close(permuted, ratios[order], rtol=1e-12, atol=0)


@given(scores, st.floats(-700, 700))
def test_a_common_factor_of_all_scores_cancels(values: list[float], log_factor: float) -> None:
    """So do the scale of the loss and the size of the batch."""
    ratios = eqf.discrepancy_ratio(logs(values))
    torch.testing.assert_close(
        eqf.discrepancy_ratio(logs(values) + log_factor), ratios, rtol=1e-9, atol=0
    )


@given(losses, losses, st.floats(0, 1e6))
def test_evidence_survives_huge_losses(
    first: list[float], second: list[float], shift: float
) -> None:
    def ratio(add: float) -> Tensor:
        of = [eqf.log_score(torch.tensor(x, dtype=torch.float64) + add) for x in (first, second)]
        return eqf.discrepancy_ratio(torch.stack(of))

    assert ratio(shift).isfinite().all()
    torch.testing.assert_close(ratio(shift), ratio(0), rtol=1e-6, atol=0)


@given(losses, st.integers(1, 5))
def test_micro_batches_add_up(values: list[float], parts: int) -> None:
    whole = torch.tensor(values, dtype=torch.float64)
    total = torch.tensor(-math.inf, dtype=torch.float64)
    for part in whole.chunk(parts):
        total = torch.logaddexp(total, eqf.log_score(part))
    torch.testing.assert_close(total, eqf.log_score(whole))


@given(st.lists(st.floats(0, 1e9) | st.just(math.nan), min_size=1), alphas)
def test_coefficients_are_bounded(values: list[float], alpha: float) -> None:
    ratio = torch.tensor(values, dtype=torch.float64)
    for coefficient in COEFFICIENTS[:2]:
        k = coefficient(ratio, alpha)
        assert ((k >= 0) & (k <= 1)).all()
        assert (k[~(ratio > 1)] == 1).all()
    two_sided = eqf.two_sided_coefficient(ratio, alpha, beta=1.7)
    assert ((two_sided >= 1 - 0.7) & (two_sided <= 1.7)).all()
    assert (two_sided[ratio > 1] <= 1).all()
    assert (two_sided[ratio < 1] >= 1).all()


@given(st.floats(1.0, 1e3), st.floats(1.0, 1e3), st.floats(0.01, 3))
def test_a_larger_lead_is_never_throttled_less(a: float, b: float, alpha: float) -> None:
    low, high = sorted((a, b))
    for coefficient in COEFFICIENTS:
        k_low, k_high = coefficient(torch.tensor([low, high], dtype=torch.float64), alpha).tolist()
        assert k_high <= k_low + 1e-12


@settings(max_examples=15)
@given(st.integers(2, 4), st.randoms(), st.sampled_from(["ogm", "ogm-ge", "update"]))
def test_the_order_of_the_modalities_does_not_matter(
    modalities: int, random: object, kind: str
) -> None:
    """Noise is drawn by the parameter's place, so only methods without it are compared."""
    order = list(range(modalities))
    random.shuffle(order)
    settings_of = {"space": "update"} if kind == "update" else {}
    found = []
    for permute in (False, True):
        world = World(modalities)
        names = list(world.encoders)
        chosen = [names[i] for i in order] if permute else names
        method = eq.OGM(0.8, coefficient=eq.TwoSided(), **settings_of)
        balancer = eq.Balancer(
            method,
            world.model,
            {n: world.encoders[n] for n in chosen},
            world.model.head,
            world.optimizer,
        )
        train(balancer, [batch(12, modalities, seed=seed) for seed in range(3)])
        found.append(weights(world.model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@settings(max_examples=15)
@given(st.integers(2, 4), st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_coefficient_one_is_a_no_op(modalities: int, dtype: torch.dtype, update: bool) -> None:
    batches = [batch(12, modalities, seed=seed, dtype=dtype) for seed in range(3)]
    space = "update" if update else "gradient"
    world, plain = World(modalities, dtype=dtype), World(modalities, dtype=dtype)
    train(world.balance(eq.OGM(0.0, space=space)), batches)
    train(plain.balance(eq.Joint()), batches)
    assert torch.equal(weights(world.model), weights(plain.model))


@settings(max_examples=15)
@given(st.integers(-20, 20), st.integers(2, 3))
def test_a_loss_scale_cancels(exponent: int, modalities: int) -> None:
    scaled, plain = World(modalities), World(modalities)
    balancer = scaled.balance(eq.OGM(0.8))
    *inputs, target = batch(12, modalities)
    balancer.backward(balancer.loss(scaled.model(*inputs), target) * 2.0**exponent)
    for parameter in scaled.model.parameters():
        parameter.grad /= 2.0**exponent
    balancer.modulate()
    scaled.optimizer.step()
    train(plain.balance(eq.OGM(0.8)), [(*inputs, target)])
    assert torch.equal(weights(scaled.model), weights(plain.model))
