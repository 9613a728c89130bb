"""Shapley values against all orders, against games whose values are known, and their sampling."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.contributions.shapley import shapley, shapley_of
from equimodal.diagnostics.contributions.subsets import Subsets, subsets
from support.subjects import LETTERS, Many, Sum, Through, data, loader_of

FILLS = ("zero", "mean", "shuffled")


def by_all_orders(found: Subsets, fill: str) -> Tensor:
    """What each modality adds, averaged over all M! orders, in float64."""
    value = dict(zip(found.members, found.values[fill].double(), strict=True))
    total = torch.zeros(len(found.names), found.samples, dtype=torch.float64)
    orders = list(itertools.permutations(range(len(found.names))))
    for order in orders:
        for size, m in enumerate(order):
            before, after = (
                tuple(found.names[i] for i in sorted(order[:k])) for k in (size, size + 1)
            )
            total[m] += value[after] - value[before]
    return total / len(orders)


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_exact_values_are_those_of_all_orders_and_add_up(modalities: int) -> None:
    model, batches = Many(modalities), loader_of(data(40, modalities))
    with model.subject() as subject:
        of = subsets(subject, batches)
        found = shapley(subject, batches)
    for fill in FILLS:
        torch.testing.assert_close(found.values[fill], by_all_orders(of, fill), rtol=0, atol=1e-12)
        total = sum(found.intervals[fill][name].value for name in of.names)
        joint, empty = of.of(fill, *of.names).value, of.of(fill).value
        assert total == pytest.approx(joint - empty, abs=1e-12)
        assert torch.equal(shapley_of(of).values[fill], found.values[fill])
    assert found.orders is None
    assert found.standard_errors is None


def test_values_of_eight_modalities_add_up() -> None:
    model, batches = Many(8), loader_of(data(24, 8), 24)
    with model.subject() as subject:
        of = subsets(subject, batches, fills=("mean",))
    found = shapley_of(of)
    assert len(of.members) == 256
    whole = of.values["mean"][-1].double() - of.values["mean"][0].double()
    torch.testing.assert_close(found.values["mean"].sum(dim=0), whole, rtol=0, atol=1e-12)


def test_values_of_known_games() -> None:
    """Logits are added up: a and b both tell the class, c tells nothing."""
    target = torch.arange(4).repeat(20)
    sure = nn.functional.one_hot(target, 4).float()
    tensors = [sure, sure, torch.zeros(80, 4), target]
    with Through(3, Sum()).subject() as subject:
        found = shapley(subject, loader_of(tensors), fills=("zero", "mean"))
    for fill in ("zero", "mean"):
        values = {name: of.value for name, of in found.intervals[fill].items()}
        assert values == pytest.approx({"a": 0.375, "b": 0.375, "c": 0}, abs=1e-12)
        idle = found.intervals[fill]["c"]
        assert (idle.low, idle.high) == (0, 0)
        assert found.versus(fill, "a", "c").low > 0.3
        assert found.versus(fill, "a", "b").high == 0


@pytest.mark.parametrize("fill", FILLS)
def test_sampled_values_meet_the_exact_ones(fill: str) -> None:
    model, batches = Many(5), loader_of(data(60, 5), 60)
    with model.subject() as subject:
        exact = shapley(subject, batches, fills=(fill,))
        found = shapley(subject, batches, fills=(fill,), orders=80)
        again = shapley(subject, batches, fills=(fill,), orders=80)
        other = shapley(subject, batches, fills=(fill,), orders=80, seed=1)
        of = subsets(subject, batches, fills=(fill,))
    assert found.orders == 80
    assert found.standard_errors is not None
    for name in LETTERS[:5]:
        gap = found.intervals[fill][name].value - exact.intervals[fill][name].value
        assert abs(gap) < 4 * found.standard_errors[fill][name]
    torch.testing.assert_close(
        found.values[fill].sum(dim=0),
        (of.values[fill][-1] - of.values[fill][0]).double(),
        rtol=0,
        atol=1e-12,
    )
    assert torch.equal(found.values[fill], again.values[fill])
    assert found.standard_errors == again.standard_errors
    assert not torch.equal(found.values[fill], other.values[fill])


def test_the_standard_error_is_the_spread_over_seeds() -> None:
    model, batches = Many(5), loader_of(data(30, 5), 30)
    with model.subject() as subject:
        runs = [
            shapley(subject, batches, fills=("zero",), orders=20, resamples=2, seed=s)
            for s in range(60)
        ]
    for name in LETTERS[:5]:
        values = torch.tensor([run.intervals["zero"][name].value for run in runs])
        errors = torch.tensor([(run.standard_errors or {})["zero"][name] for run in runs])
        assert 0.7 < float(values.std() / errors.square().mean().sqrt()) < 1.4


def test_what_a_modality_adds_in_any_company_is_found_without_error() -> None:
    """The metric is a logit of a linear head: no order matters."""
    tensors = [torch.randn(20, 4, generator=torch.Generator().manual_seed(m)) for m in range(10)]
    first = lambda logits, target: logits[:, 0].double()  # noqa: E731
    batches = loader_of([*tensors, torch.zeros(20).long()])
    with Through(10, Sum()).subject() as subject:
        found = shapley(subject, batches, fills=("zero",), metric=first)
    assert found.orders == 64
    expected = torch.stack([tensor[:, 0] for tensor in tensors]).double()
    torch.testing.assert_close(found.values["zero"], expected, rtol=0, atol=1e-5)
    assert found.standard_errors is not None
    assert max(found.standard_errors["zero"].values()) < 1e-6
    written = json.loads(json.dumps(found.to_dict()))
    assert set(written["zero"]["a"]) == {"value", "low", "high", "standard_error"}


def test_pairs_of_an_order_and_its_reverse_err_less() -> None:
    """Of a game of pairs the second half undoes the error of the first: there is none left."""
    tensors = [torch.randn(12, 4, generator=torch.Generator().manual_seed(m)) for m in range(9)]
    squared = lambda logits, target: logits[:, 0].double() ** 2  # noqa: E731
    batches = loader_of([*tensors, torch.zeros(12).long()])
    with Through(9, Sum()).subject() as subject:
        found = shapley(subject, batches, fills=("zero",), metric=squared, orders=4)
    x = torch.stack([tensor[:, 0] for tensor in tensors]).double()
    torch.testing.assert_close(found.values["zero"], x * x.sum(dim=0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("orders", [0, 2, 5])
def test_orders_come_in_pairs(orders: int) -> None:
    with (
        Many(3).subject() as subject,
        pytest.raises(eq.SetupError, match=f"an even number from 4, found {orders}"),
    ):
        shapley(subject, loader_of(data(20)), orders=orders)


def test_a_part_of_the_subsets_is_not_enough() -> None:
    with Many(9).subject() as subject:
        of = subsets(subject, loader_of(data(8, 9)), fills=("zero",))
    with pytest.raises(eq.SetupError, match="9 modalities have too many"):
        shapley_of(of)
