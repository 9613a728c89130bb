"""Noise depends on seed, step and parameter, and on nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch

import equimodal as eq
from equimodal.noise import NoiseSource, mix
from support import slow


def test_mix_is_the_finaliser_of_splitmix() -> None:
    for numbers in ((0,), (1, 2, 3), (2**40, 0, 7)):
        assert mix(*numbers) == slow.splitmix(*numbers)


def test_mixed_numbers_hardly_collide() -> None:
    mixed = {mix(*numbers) for numbers in itertools.product(range(3), range(100), range(100))}
    assert len(mixed) > 30_000 - 5  # the birthday bound of 32 bits is a fraction of one


def test_draws_are_determined_and_differ_in_seed_step_and_parameter() -> None:
    like = torch.empty(5, 3)
    first = NoiseSource(1).draw(like, 2, 3).clone()
    assert torch.equal(NoiseSource(1).draw(like, 2, 3), first)
    for seed, step, parameter in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(NoiseSource(seed).draw(like, step, parameter), first)


def test_draws_do_not_depend_on_those_before() -> None:
    source = NoiseSource(0)
    for size in (100, 3, 7):
        source.draw(torch.empty(size), size, size)
    found = source.draw(torch.empty(4, 4), 9, 1).clone()
    assert torch.equal(found, NoiseSource(0).draw(torch.empty(4, 4), 9, 1))


def test_draws_are_standard_normal_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    values = NoiseSource(0).draw(torch.empty(200_000, dtype=torch.float64), 0, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    assert values.std().item() == pytest.approx(1, abs=0.01)
    assert (values.abs() > 3).double().mean().item() == pytest.approx(0.0027, rel=0.2)


def test_one_buffer_serves_all_draws_of_a_kind() -> None:
    source = NoiseSource(0)
    large = source.draw(torch.empty(100), 0, 0).data_ptr()
    assert source.draw(torch.empty(7, 2), 0, 1).data_ptr() == large
    assert source.draw(torch.empty(8, dtype=torch.float64), 0, 1).data_ptr() != large


def test_a_slice_of_a_parameter_gets_the_slice_of_its_noise() -> None:
    whole = NoiseSource(0).draw(torch.empty(6, 4), 1, 1).clone()
    for rank, part in enumerate(whole.chunk(2)):
        again = NoiseSource(0).draw(torch.empty(6, 4), 1, 1)
        assert torch.equal(again.chunk(2)[rank], part)


def test_noises_of_one_kind_and_setting_are_the_same() -> None:
    assert eq.TensorNoise() == eq.TensorNoise()
    assert eq.ElementNoise(0.5) == eq.ElementNoise(0.5)
    assert eq.ElementNoise(0.5) != eq.ElementNoise(0.6)
    assert eq.TensorNoise() != eq.ElementNoise()
    assert len({eq.ElementNoise(0.5), eq.ElementNoise(0.5)}) == 1
    assert repr(eq.ElementNoise(0.5)) == "ElementNoise(decay=0.5)"
