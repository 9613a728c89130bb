"""Noise depends on seed, step, parameter and place, and on nothing else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import equimodal as eq
from equimodal import noise
from equimodal.noise import NoiseJob, NoiseSource, mix
from support import slow

ONE = torch.ones(())


def draw(shape: Any, seed: int = 0, step: int = 0, parameter: int = 0, std: Tensor = ONE) -> Tensor:
    tensor = torch.zeros(shape)
    NoiseSource(seed).add_([NoiseJob(tensor, std, parameter)], step)
    return tensor


def test_mix_is_the_finaliser_of_splitmix() -> None:
    for numbers in ((0,), (1, 2, 3), (2**40, 0, 7)):
        assert mix(*numbers) == slow.splitmix(*numbers)


def test_mixed_numbers_hardly_collide() -> None:
    mixed = {mix(*numbers) for numbers in itertools.product(range(3), range(100), range(100))}
    assert len(mixed) > 30_000 - 5  # the birthday bound of 32 bits is a fraction of one


@pytest.mark.parametrize("shape", [(5, 3), (40_000,), (3, 200, 333)])
def test_equals_the_slow_twin(shape: Any) -> None:
    expected = slow.noise(torch.Size(shape), torch.float32, 1, 2, 3)
    assert torch.equal(draw(shape, 1, 2, 3), expected)


def test_differs_in_seed_step_and_parameter() -> None:
    first = draw((5, 3), 1, 2, 3)
    for arguments in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(draw((5, 3), *arguments), first)


def test_pieces_differ_from_each_other() -> None:
    first, second = draw(2 * noise.PIECE_ON_CPU).chunk(2)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_does_not_depend_on_threads_or_on_what_else_is_drawn(threads: int) -> None:
    shapes = [(700, 1000), (3,), (50, 60, 70), (noise.PIECE_ON_CPU + 1,)]
    alone = [draw(shape, 5, 6, index) for index, shape in enumerate(shapes)]
    together = [torch.zeros(shape) for shape in shapes]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        jobs = [NoiseJob(tensor, ONE, index) for index, tensor in enumerate(together)]
        NoiseSource(5).add_(jobs[::-1], 6)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_is_added_with_its_standard_deviation() -> None:
    start = torch.randn(100, 1000)
    tensor, std = start.clone(), torch.tensor(0.5)
    NoiseSource(0).add_([NoiseJob(tensor, std, 0)], 0)
    torch.testing.assert_close(tensor, start + 0.5 * draw((100, 1000)))
    each = torch.rand(100, 1000)
    torch.testing.assert_close(draw((100, 1000), std=each), each * draw((100, 1000)))


def test_is_standard_normal_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    values = draw(200_000).double()
    assert torch.equal(torch.get_rng_state(), state)
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    assert values.std().item() == pytest.approx(1, abs=0.01)
    assert (values.abs() > 3).double().mean().item() == pytest.approx(0.0027, rel=0.2)


def test_places_count_in_the_order_of_the_indices_whatever_the_memory_is() -> None:
    strided = torch.zeros(4, 8, 40, 50).to(memory_format=torch.channels_last)
    NoiseSource(0).add_([NoiseJob(strided, ONE, 0)], 0)
    assert torch.equal(strided, draw((4, 8, 40, 50)))


def test_a_parameter_in_training_can_be_given() -> None:
    parameter = torch.nn.Parameter(torch.zeros(7))
    NoiseSource(0).add_([NoiseJob(parameter, ONE, 0)], 0)
    assert torch.equal(parameter.detach(), draw(7))


def test_nothing_to_add() -> None:
    NoiseSource(0).add_([], 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    tensor = torch.zeros(1000, dtype=dtype)
    NoiseSource(0).add_([NoiseJob(tensor, ONE, 0)], 0)
    assert tensor.double().std().item() == pytest.approx(1, abs=0.1)


def test_noises_of_one_kind_and_setting_are_the_same() -> None:
    assert eq.TensorNoise() == eq.TensorNoise()
    assert eq.ElementNoise(0.5) == eq.ElementNoise(0.5)
    assert eq.ElementNoise(0.5) != eq.ElementNoise(0.6)
    assert eq.TensorNoise() != eq.ElementNoise()
    assert len({eq.ElementNoise(0.5), eq.ElementNoise(0.5)}) == 1
    assert repr(eq.ElementNoise(0.5)) == "ElementNoise(decay=0.5)"


SHAPES = [(5, 3), (2,), (16, 12), (64,), (65,), (8192,), (8193,), (1, 1), (3, 4, 5, 5)] * 5


def gradients(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """More than fit into the room for small tensors at once, of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.randn(shape, dtype=dtype, generator=generator) * 10.0 ** (index % 7 - 3)
        for index, shape in enumerate(SHAPES)
    ]
    made[4][3] = torch.nan
    strided = torch.randn(4, 8, 5, 5, dtype=dtype, generator=generator)
    return [*made, strided.to(memory_format=torch.channels_last)]


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 0)]
)
def test_deviations_of_many_tensors_are_those_of_each(dtype: torch.dtype, rtol: float) -> None:
    several = gradients(dtype)
    found = eq.TensorNoise().stds(several, [{} for _ in several])
    for gradient, std in zip(several, found, strict=True):
        expected = eq.functional.tensor_std(gradient)
        torch.testing.assert_close(std, expected, rtol=rtol, atol=0, equal_nan=True)


def test_small_tensors_get_together_what_each_would_get() -> None:
    several = gradients()
    stds = [torch.full((), 0.5 + index, dtype=torch.float64) for index in range(len(several))]
    found = [gradient.clone() for gradient in several]
    jobs = [NoiseJob(*each, index) for index, each in enumerate(zip(found, stds, strict=True))]
    NoiseSource(3).add_(jobs, 7)
    for index, (noisy, gradient) in enumerate(zip(found, several, strict=True)):
        drawn = slow.noise(gradient.shape, gradient.dtype, 3, 7, index)
        expected = gradient + stds[index] * drawn
        torch.testing.assert_close(noisy, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_a_noise_of_another_strength_is_asked_for_every_tensor() -> None:
    class Half(eq.TensorNoise):
        def std(self, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
            return gradient.new_full((), 0.5)

    assert all(std == 0.5 for std in Half().stds(gradients(), [{} for _ in SHAPES] + [{}]))
