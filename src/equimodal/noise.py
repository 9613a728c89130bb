"""The noise of generalisation enhancement: how strong it is, and where it comes from."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal import functional
from equimodal.errors import SetupError


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
            "weight": torch.zeros((), dtype=gradient.dtype, device=gradient.device),
        }

    def std(self, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        functional.running_moments_(gradient, **state, decay=self.decay)
        return functional.element_std(state["deviation"], state["weight"])


class NoiseSource:
    """Standard normal numbers that depend on the seed, the step and the parameter, and no more.

    They are the same on every rank, in a resumed run, and for a parameter of which a rank holds
    only a slice. One buffer, as large as the largest parameter, is used for all.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._generators: dict[torch.device, torch.Generator] = {}

    def draw(self, like: Tensor, step: int, parameter: int) -> Tensor:
        """Return standard normal numbers shaped like a tensor, valid until the next draw.

        Args:
            like: gives shape, dtype and device.
            step: optimizer steps so far.
            parameter: a number that stands for the parameter in every run of the model.
        """
        generator = self._generators.get(like.device)
        if generator is None:
            generator = self._generators[like.device] = torch.Generator(like.device)
        generator.manual_seed(mix(self.seed, step, parameter))
        buffer = self._buffers.get((like.device, like.dtype))
        if buffer is None or buffer.numel() < like.numel():
            buffer = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
            self._buffers[like.device, like.dtype] = buffer
        return buffer[: like.numel()].view(like.shape).normal_(generator=generator)


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
