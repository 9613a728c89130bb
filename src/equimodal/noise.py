"""The noise of generalisation enhancement: how strong it is, and where it comes from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from equimodal import functional
from equimodal.errors import SetupError
from equimodal.system.scratch import Scratch, shares

_SCRATCH = Scratch()


class Noise:
    """Gaussian noise on gradients (or on updates): subclasses say how strong.

    State per parameter is a dict of tensors, made once by `state` and changed in place by `std`.
    Two noises are the same if they are of one class with equal settings.
    """

    def state(self, gradient: Tensor) -> dict[str, Tensor]:
        """Return the state for a parameter whose gradient looks like this one."""
        return {}

    def std(self, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Return the standard deviation for a gradient: shape ``()``, or the gradient's shape."""
        raise NotImplementedError

    def stds(
        self, gradients: Sequence[Tensor], states: Sequence[dict[str, Tensor]]
    ) -> Sequence[Tensor]:
        """Return what `std` does for each of several gradients."""
        return [self.std(g, state) for g, state in zip(gradients, states, strict=True)]

    def sliced_stds(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[dict[str, Tensor]],
        gather: Callable[[Tensor], Tensor],
    ) -> Sequence[Tensor]:
        """Return the standard deviations for gradients of which every rank has a slice.

        Args:
            gradients: this rank's slices, which may be empty.
            states: the state of each, its tensors of the gradient's shape as slices too.
            gather: stacks a tensor of all ranks along a new first dimension, in one collective.

        Returns:
            For each gradient the deviation of the whole one, shape ``()``, or that of the slice.
        """
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(vars(self).items())))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


class TensorNoise(Noise):
    """One standard deviation per tensor, that of its unmodulated gradient: the published code."""

    def std(self, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        return functional.tensor_std(gradient)

    def stds(
        self, gradients: Sequence[Tensor], states: Sequence[dict[str, Tensor]]
    ) -> Sequence[Tensor]:
        if torch.compiler.is_compiling() or type(self).std is not TensorNoise.std:
            return super().stds(gradients, states)
        found: list[Tensor | None] = [None] * len(gradients)
        for share in shares(gradients):
            small = [gradients[position] for position in share]
            layout = _SCRATCH.layout(small)
            norms = torch.stack(torch._foreach_norm(small))
            deviations = functional.std_of_sums(norms, layout.sums(small), layout.sizes)
            for position, deviation in zip(share, deviations.unbind(), strict=True):
                found[position] = deviation
        return [
            functional.tensor_std(gradient) if std is None else std
            for gradient, std in zip(gradients, found, strict=True)
        ]

    def sliced_stds(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[dict[str, Tensor]],
        gather: Callable[[Tensor], Tensor],
    ) -> Sequence[Tensor]:
        moments = torch.stack([functional.slice_moments(gradient) for gradient in gradients])
        return functional.sliced_std(gather(moments)).unbind()


class ElementNoise(Noise):
    """A standard deviation for every element, from running moments of the step gradients.

    The diagonal of the covariance of stochastic gradients: the noise that the theory of OGM-GE
    speaks of (Peng et al., CVPR 2022). Keeps two tensors per parameter. A step whose gradient is
    not finite leaves the moments as they were.

    Args:
        decay: of the running means, at least 0 and below 1.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 <= decay < 1:
            raise SetupError(f"ElementNoise(decay): expected 0 <= decay < 1, found {decay}")
        self.decay = decay

    def state(self, gradient: Tensor) -> dict[str, Tensor]:
        return {
            "mean": torch.zeros_like(gradient),
            "deviation": torch.zeros_like(gradient),
            "count": torch.zeros((), dtype=torch.int64, device=gradient.device),
        }

    def std(self, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        functional.running_moments_(gradient, **state, decay=self.decay)
        return functional.element_std(state["deviation"], state["count"], self.decay)

    def sliced_stds(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[dict[str, Tensor]],
        gather: Callable[[Tensor], Tensor],
    ) -> Sequence[Tensor]:
        finite = torch.stack([torch.isfinite(gradient).all() for gradient in gradients])
        sound = gather(finite).all(dim=0)  # of the whole gradients
        for gradient, state, each in zip(gradients, states, sound.unbind(), strict=True):
            functional.running_moments_(gradient, **state, decay=self.decay, sound=each)
        return [
            functional.element_std(state["deviation"], state["count"], self.decay)
            for state in states
        ]


@dataclass(frozen=True)
class NoiseJob:
    """Noise to add to a tensor.

    Attributes:
        tensor: changed in place.
        std: standard deviation, shape ``()`` or that of the tensor.
        parameter: a number that stands for the parameter in every run of the model.
        start: place of the tensor's first element in the flattened parameter.
        total: number of elements of the parameter; 0 if the tensor is all of it.
    """

    tensor: Tensor
    std: Tensor
    parameter: int
    start: int = 0
    total: int = 0


class NoiseSource:
    """Normal numbers that depend on the seed, the step, the parameter and the place in it alone.

    They are the same on every rank, in a resumed run, and for a parameter of which a rank holds
    only a slice. They are drawn in pieces of a fixed size, each from a seed of its own: the memory
    they take is that of a piece, and on a CPU its threads draw side by side.

    Args:
        seed: the same on every rank.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        _register()

    def add_(self, jobs: Sequence[NoiseJob], step: int) -> None:
        """Add noise to all tensors, in place.

        Args:
            jobs: what to add where, all on one device.
            step: optimizer steps so far.
        """
        if torch.compiler.is_compiling():
            fields = [[getattr(job, field) for job in jobs] for field in FIELDS]
            torch.ops.equimodal.add_noise(*fields, self.seed, step)
            return
        jobs = self._add_small(jobs, step)
        pieces, strided = [], []
        for job in jobs:
            tensor = job.tensor.detach()
            if not tensor.is_contiguous():  # places count in order of indices, not of memory
                scratch = torch.zeros_like(tensor, memory_format=torch.contiguous_format)
                strided.append((tensor, scratch))
                tensor = scratch
            pieces += _pieces(tensor.view(-1), job)
        on_cpu = bool(pieces) and pieces[0].flat.device.type == "cpu"
        threads = torch.get_num_threads() if on_cpu and len(pieces) >= WORTH_THREADS else 1
        if threads == 1:
            self._draw(pieces, step)
        else:
            shares = [pieces[start::threads] for start in range(threads)]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(self._draw, shares, itertools.repeat(step)))
        for tensor, scratch in strided:
            tensor += scratch

    def _add_small(self, jobs: Sequence[NoiseJob], step: int) -> list[NoiseJob]:
        """Add noise to small tensors, as it would be to each alone, and return the other jobs."""
        whole = [job for job in jobs if not job.total and job.std.ndim == 0]
        whole = [job for job in whole if job.tensor.numel() <= _piece_size(job.tensor)]
        tensors = [job.tensor.detach() if job.tensor.requires_grad else job.tensor for job in whole]
        done: set[int] = set()
        for share in shares(tensors):
            small = [tensors[position] for position in share]
            views = _SCRATCH.layout(small).views
            generator = torch.Generator(small[0].device)
            for position, view in zip(share, views, strict=True):
                generator.manual_seed(mix(self.seed, step, whole[position].parameter, 0))
                view.normal_(generator=generator)
            torch._foreach_addcmul_(small, views, [whole[position].std for position in share])
            done.update(id(whole[position]) for position in share)
        return [job for job in jobs if id(job) not in done]

    def _draw(self, pieces: Sequence[_Piece], step: int) -> None:
        if not pieces:
            return
        generator = torch.Generator(pieces[0].flat.device)
        buffers: dict[torch.dtype, Tensor] = {}
        for piece in pieces:
            flat = piece.flat
            generator.manual_seed(mix(self.seed, step, piece.parameter, piece.number))
            buffer = buffers.get(flat.dtype)
            if buffer is None or len(buffer) < piece.length:
                buffer = buffers[flat.dtype] = flat.new_empty(piece.length)
            drawn = buffer[: piece.length].normal_(generator=generator)
            if piece.length > len(flat):  # all are drawn: a number depends on how many there are
                drawn = drawn[piece.skip : piece.skip + len(flat)]
            flat.add_(drawn.mul_(piece.std))


# Pieces as large as what torch works on without calling its own threads; larger where launching an
# operation costs more than what it does.
PIECE_ON_CPU = 2**15
PIECE_ELSEWHERE = 2**22
WORTH_THREADS = 16


class _Piece(NamedTuple):
    flat: Tensor
    std: Tensor
    parameter: int
    number: int
    length: int  # of the whole piece
    skip: int  # places of the whole piece before the first of `flat`


def _piece_size(tensor: Tensor) -> int:
    return PIECE_ON_CPU if tensor.device.type == "cpu" else PIECE_ELSEWHERE


def _pieces(flat: Tensor, job: NoiseJob) -> list[_Piece]:
    size = _piece_size(flat)
    total, place, end = job.total or len(flat), job.start, job.start + len(flat)
    lengths: list[int] = []
    numbers: list[int] = []
    skips: list[int] = []
    while place < end:
        number, skip = divmod(place, size)
        numbers.append(number)
        skips.append(skip)
        lengths.append(min(size - skip, end - place))
        place += lengths[-1]
    std = job.std
    stds = itertools.repeat(std) if std.ndim == 0 else iter(torch.split(std.reshape(-1), lengths))
    return [
        _Piece(piece, next(stds), job.parameter, number, min(size, total - number * size), skip)
        for piece, number, skip in zip(torch.split(flat, lengths), numbers, skips, strict=True)
    ]


FIELDS = ("tensor", "std", "parameter", "start", "total")


@cache
def _register() -> object:
    """Make the operation known to the compiler: once, and not while equimodal is imported."""
    make = torch.library.custom_op("equimodal::add_noise", mutates_args={"tensors"})
    return make(_add_noise)


def _add_noise(
    tensors: Sequence[Tensor],
    stds: Sequence[Tensor],
    parameters: Sequence[int],
    starts: Sequence[int],
    totals: Sequence[int],
    seed: int,
    step: int,
) -> None:
    """Add noise from within a compiled step: the compiler sees one operation and does not enter."""
    jobs = [NoiseJob(*job) for job in zip(tensors, stds, parameters, starts, totals, strict=True)]
    NoiseSource(seed).add_(jobs, step)


def mix(*numbers: int) -> int:
    """Mix integers into 32 well-spread bits: neighbouring steps and parameters share nothing.

    The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014), over each number in turn.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 32
