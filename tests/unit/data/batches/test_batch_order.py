"""Who gets which sample when."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

import equimodal as eq
from equimodal.data.batches.order import Order


class Told(list[int]):
    """A data set that notes what it is told."""

    def __init__(self, size: int) -> None:
        super().__init__(range(size))
        self.told: list[tuple[int, int]] = []

    def set_epoch(self, epoch: int, seed: int) -> None:
        self.told.append((epoch, seed))


def joined(parts: list[list[int]]) -> list[int]:
    return [place for part in parts for place in part]


def batches(order: Order, size: int) -> list[list[int]]:
    return [part.tolist() for part in DataLoader(list(range(100)), size, sampler=order)]


@pytest.mark.parametrize("size", [1, 7, 64, 65])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_in_their_own_order_every_sample_comes_once(size: int, world: int) -> None:
    parts = [list(Order(range(size), rank=rank, world=world)) for rank in range(world)]
    assert sorted(joined(parts)) == list(range(size))
    assert [len(Order(range(size), rank=r, world=world)) for r in range(world)] == [
        len(part) for part in parts
    ]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shuffled_all_ranks_have_equally_many_and_none_twice(world: int) -> None:
    orders = [Order(range(20), 5, shuffle=True, rank=rank, world=world) for rank in range(world)]
    seen = set()
    for _ in range(30):
        parts = [list(order) for order in orders]
        assert {len(part) for part in parts} == {20 // world} == {len(order) for order in orders}
        assert len(set(joined(parts))) == 20 // world * world
        seen |= set(joined(parts))
    assert seen == set(range(20))  # what remains is another in each epoch


def test_batches_of_two_ranks_are_those_of_one_process_with_large_ones() -> None:
    alone = batches(Order(range(40), 3, shuffle=True, rank=0, world=1), 8)
    first, second = (
        batches(Order(range(40), 3, shuffle=True, rank=rank, world=2), 4) for rank in range(2)
    )
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(b) for b in alone]


def test_every_pass_is_another_epoch_unless_it_is_said_which() -> None:
    order = Order(range(50), 1, shuffle=True, rank=0, world=1)
    passes = [list(order) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    order.set_epoch(1)
    assert [list(order), list(order)] == passes[1:]
    assert list(Order(range(50), 2, shuffle=True, rank=0, world=1)) != passes[0]
    assert [list(Order(range(50)))] * 2 == [list(range(50))] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupted_epoch_goes_on_where_it_was(rank: int) -> None:
    whole = Order(range(21), 4, shuffle=True, rank=rank, world=2)
    epochs = [list(whole) for _ in range(4)]
    resumed = Order(range(21), 4, shuffle=True, rank=rank, world=2)
    resumed.go_on(2, 6)
    resumed.set_epoch(2)  # as a training engine does when it goes on
    assert list(resumed) == epochs[2][6:]
    assert list(resumed) == epochs[3]
    resumed.go_on(2, 6)
    resumed.set_epoch(3)  # not that epoch after all
    assert list(resumed) == epochs[3]


def test_going_on_beyond_the_end_is_refused() -> None:
    with pytest.raises(eq.SetupError, match="expected 0 to 10 of an epoch, found 11"):
        Order(range(21), shuffle=True, rank=0, world=2).go_on(0, 11)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, None), (None, 2)])
def test_a_rank_that_is_none_of_the_world_is_refused(rank: int | None, world: int | None) -> None:
    with pytest.raises(eq.SetupError, match="rank: expected one of a world"):
        Order(range(4), rank=rank, world=world)


def test_the_data_set_is_told_before_its_first_sample_is_asked_for() -> None:
    data = Told(4)
    order = Order(data, 7)
    iterator = iter(order)
    assert data.told == []
    next(iterator)
    assert data.told == [(0, 7)]
    list(order)
    assert data.told == [(0, 7), (1, 7)]


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(Order(range(9), shuffle=True))
    assert torch.equal(before, torch.get_rng_state())
