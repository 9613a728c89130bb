"""Every equation in `functional` against its slow twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from equimodal import functional as eqf
from support import slow

generator = np.random.default_rng(0)


@pytest.mark.parametrize(("size", "classes", "seed"), [(1, 2, 0), (16, 6, 1), (64, 25, 2)])
def test_log_score_is_the_sum_of_true_class_probabilities(
    size: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=(size, classes)) * 3, rng.integers(classes, size=size)
    losses = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(target), reduction="none"
    )
    expected = slow.score(logits, target.tolist())
    assert eqf.log_score(losses).exp().item() == pytest.approx(expected, rel=1e-12)


def test_log_score_leaves_out_samples_that_do_not_count() -> None:
    losses = torch.tensor([0.5, math.nan, 2.0], dtype=torch.float64)
    ignored = torch.tensor([False, True, False])
    expected = math.log(math.exp(-0.5) + math.exp(-2.0))
    assert eqf.log_score(losses, ignored).item() == pytest.approx(expected, rel=1e-12)


def test_log_score_of_nothing_is_minus_infinity() -> None:
    assert eqf.log_score(torch.ones(3), torch.ones(3, dtype=torch.bool)) == -math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_log_score_says_that_a_loss_is_not_finite(bad: float) -> None:
    assert eqf.log_score(torch.tensor([1.0, bad])).isnan()


def test_temperature_divides_the_losses() -> None:
    losses = torch.tensor([3.0, 5.0])
    torch.testing.assert_close(eqf.log_score(losses, temperature=2), eqf.log_score(losses / 2))


@pytest.mark.parametrize("scores", [[3.0, 2.0], [0.1, 5.0], [1.0, 2.0, 4.0], [1, 2, 3, 4, 5, 6]])
def test_discrepancy_ratio(scores: list[float]) -> None:
    logs = torch.tensor(scores, dtype=torch.float64).log()
    np.testing.assert_allclose(eqf.discrepancy_ratio(logs), slow.ratios(scores), rtol=1e-12)


def test_ratio_compares_scores_per_sample_where_counts_differ() -> None:
    logs = torch.tensor([6.0, 4.0], dtype=torch.float64).log()
    ratio = eqf.discrepancy_ratio(logs, torch.tensor([12.0, 4.0], dtype=torch.float64))
    np.testing.assert_allclose(ratio, [0.5, 2.0])


def test_ratio_without_anybody_to_compare_with_is_undefined() -> None:
    assert eqf.discrepancy_ratio(torch.zeros(2), torch.tensor([3.0, 0.0])).isnan().all()


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.3, 0.8, 2.6])
@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0, 1.0 + 1e-12, 1.5, 30.0])
def test_coefficients(ratio: float, alpha: float) -> None:
    given = torch.tensor(ratio, dtype=torch.float64)
    for ours, twin in (
        (eqf.thresholded_coefficient, slow.thresholded),
        (eqf.continuous_coefficient, slow.continuous),
    ):
        assert ours(given, alpha).item() == pytest.approx(twin(ratio, alpha), rel=1e-12, abs=1e-15)
    for beta in (1.0, 1.5, 2.0):
        ours_two = eqf.two_sided_coefficient(given, alpha, beta).item()
        assert ours_two == pytest.approx(slow.two_sided(ratio, alpha, beta), rel=1e-9, abs=1e-15)


def test_released_code_of_the_two_sided_coefficient_damps_by_one_whatever_beta() -> None:
    given = torch.tensor([2.0, 0.5], dtype=torch.float64)
    leader, behind = eqf.two_sided_coefficient(given, 0.8, beta=5.0, damping=1.0).tolist()
    assert leader == pytest.approx(1 + math.tanh(0.8 * (0.5 - 1)))
    assert behind == pytest.approx(1 + 4 * math.tanh(0.8))


@pytest.mark.parametrize(
    "coefficient",
    [eqf.thresholded_coefficient, eqf.continuous_coefficient, eqf.two_sided_coefficient],
)
def test_an_undefined_ratio_changes_nothing_and_an_infinite_one_is_bounded(
    coefficient: object,
) -> None:
    assert callable(coefficient)
    values = coefficient(torch.tensor([math.nan, math.inf, 0.0]), 0.5)
    assert values[0] == 1
    assert values.isfinite().all()


def test_split_of_a_linear_head_adds_up_to_the_logits() -> None:
    widths, classes = {"a": 3, "v": 5, "t": 2}, 4
    features = {n: torch.tensor(generator.normal(size=(6, w))) for n, w in widths.items()}
    weight = torch.tensor(generator.normal(size=(classes, sum(widths.values()))))
    bias = torch.tensor(generator.normal(size=classes))
    slices = dict(zip(widths, torch.split(weight, list(widths.values()), dim=1), strict=True))
    parts = eqf.split_linear(features, slices, bias)
    whole = torch.cat(list(features.values()), dim=1) @ weight.T + bias
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), whole)
    np.testing.assert_allclose(
        parts["v"], features["v"].numpy() @ slices["v"].numpy().T + bias.numpy() / 3, rtol=1e-12
    )
    without = eqf.split_linear(features, slices, None)
    torch.testing.assert_close(parts["a"] - without["a"], (bias / 3).expand(6, 4))


@pytest.mark.parametrize("widths", [(3, 3, 3), (3, 5, 2)])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_split_of_columns_is_that_of_slices(
    widths: tuple[int, ...], graph: bool, shape: tuple[int, ...]
) -> None:
    features = {
        f"m{i}": torch.tensor(generator.normal(size=(*shape, w))) for i, w in enumerate(widths)
    }
    whole = torch.tensor(generator.normal(size=(sum(widths), 4))).T.requires_grad_()
    bias = torch.tensor(generator.normal(size=4))
    slices = dict(zip(features, torch.split(whole, list(widths), dim=1), strict=True))
    for given in (bias, None):
        expected = eqf.split_linear(features, slices, given)
        with torch.set_grad_enabled(graph):
            found = eqf.split_columns(features, whole, given)
        assert list(found) == list(expected)
        for name, each in found.items():
            torch.testing.assert_close(each, expected[name].detach().requires_grad_(graph))
        if graph:
            ours, theirs = (
                torch.autograd.grad(sum(u.square().sum() for u in of.values()), whole)[0]
                for of in (found, expected)
            )
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(2,), (3, 4), (2, 3, 5, 5)])
def test_noise_of_the_published_code_has_the_standard_deviation_of_the_tensor(
    shape: tuple[int, ...],
) -> None:
    values = generator.normal(size=shape) * 0.01
    expected = slow.standard_deviation(values) + 1e-8
    assert eqf.tensor_std(torch.tensor(values)).item() == pytest.approx(expected, rel=1e-12)


def test_a_single_element_gets_no_noise() -> None:
    assert eqf.tensor_std(torch.tensor([3.0])) == 0


def test_element_std_is_that_of_weighted_gradients() -> None:
    gradients = generator.normal(size=(7, 3))
    decay = 0.8
    mean, deviation = torch.zeros(2, 3, dtype=torch.float64).unbind()
    count = torch.zeros((), dtype=torch.int64)
    for gradient in torch.tensor(gradients):
        eqf.running_moments_(gradient, mean, deviation, count, decay)
    shares = (1 - decay) * decay ** np.arange(7)[::-1]
    average = np.average(gradients, 0, shares)
    expected = np.sqrt(np.average((gradients - average) ** 2, 0, shares))
    assert count.item() == 7
    np.testing.assert_allclose(mean, average, rtol=1e-12)
    np.testing.assert_allclose(eqf.element_std(deviation, count, decay), expected, rtol=1e-12)


def test_element_std_of_a_gradient_that_never_varies_is_zero() -> None:
    mean, deviation = torch.zeros(2, 4).unbind()
    count = torch.zeros((), dtype=torch.int64)
    assert (eqf.element_std(deviation, count, 0.9) == 0).all()
    for _ in range(5):
        eqf.running_moments_(torch.full((4,), 1e3), mean, deviation, count, 0.9)
        assert (eqf.element_std(deviation, count, 0.9) == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_moments_ignore_a_gradient_that_is_not_finite(bad: float) -> None:
    state = [torch.zeros(2), torch.zeros(2), torch.zeros((), dtype=torch.int64)]
    eqf.running_moments_(torch.tensor([1.0, 2.0]), *state, decay=0.9)
    eqf.running_moments_(torch.tensor([2.0, 0.0]), *state, decay=0.9)
    before = [value.clone() for value in state]
    eqf.running_moments_(torch.tensor([bad, 1.0]), *state, decay=0.9)
    assert all(torch.equal(value, old) for value, old in zip(state, before, strict=True))


def test_moments_of_a_large_tensor_are_those_of_its_elements() -> None:
    """Taken in pieces, and left alone by a gradient of which one piece alone is not finite."""
    shape = (300, 400)
    moments = {key: torch.zeros(shape, dtype=torch.float64) for key in ("mean", "deviation")}
    column = {key: torch.zeros((300, 1), dtype=torch.float64) for key in moments}
    counts = [torch.zeros((), dtype=torch.int64) for _ in range(2)]
    for step in range(4):
        gradient = torch.tensor(generator.normal(size=shape))
        if step == 2:
            gradient[299, 0] = math.inf
        eqf.running_moments_(gradient, **moments, count=counts[0], decay=0.9)
        eqf.running_moments_(gradient[:, :1], **column, count=counts[1], decay=0.9)
    assert counts[0] == counts[1] == 3
    for key, whole in moments.items():
        assert torch.equal(whole[:, :1], column[key])
