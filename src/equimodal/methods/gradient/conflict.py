"""What becomes of two gradients that disagree: the choices of MMPareto."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.errors import SetupError, unknown
from equimodal.functional.mmpareto import min_norm_weight
from equimodal.system import extras

Gradient = Sequence[Tensor]


class Conflict:
    """Makes one gradient of two that point apart, of the size of their mean."""

    def __call__(self, joint: Gradient, unimodal: Gradient, seed: int) -> list[Tensor]:
        """Return the gradient of an encoder's parameters.

        Args:
            joint: gradient of the joint loss, one tensor per parameter.
            unimodal: gradient of the unimodal loss.
            seed: for what is drawn at random.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MinNorm(Conflict):
    """The shortest convex combination of both (Wei and Hu, ICML 2024)."""

    def __call__(self, joint: Gradient, unimodal: Gradient, seed: int) -> list[Tensor]:
        return mixed(joint, unimodal, min_norm_weight(*products(joint, unimodal)))


class TorchJD(Conflict):
    """An aggregator of the library TorchJD in place of the shortest combination.

    Args:
        name: of a class of ``torchjd.aggregation``, such as "AlignedMTL" or "UPGrad".
        settings: its arguments.

    Raises:
        ImportError: TorchJD is not installed.
        SetupError: there is no such aggregator, it does not take these settings, or it keeps a
            state that a restart would lose.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        extras.require("torchjd", "torchjd")
        aggregation = importlib.import_module("torchjd.aggregation")
        known = [
            found
            for found in aggregation.__all__
            if issubclass(getattr(aggregation, found), aggregation.Aggregator)
        ]
        if name not in known:
            raise SetupError(unknown("aggregator of torchjd", name, known))
        try:
            self.aggregator = getattr(aggregation, name)(**settings)
        except (TypeError, ValueError) as error:
            raise SetupError(f"TorchJD({name!r}, **{settings}): {error}") from error
        if any(hasattr(module, "reset") for module in self.aggregator.modules()):
            raise SetupError(
                f"TorchJD({name!r}) remembers past steps, which a restart would lose: choose an "
                "aggregator without a state, such as AlignedMTL"
            )

    def __repr__(self) -> str:
        return f"TorchJD({self.aggregator})"

    def __call__(self, joint: Gradient, unimodal: Gradient, seed: int) -> list[Tensor]:
        rows = [torch.cat([g.flatten() for g in of]) for of in (joint, unimodal)]
        jacobian = torch.stack(rows)
        # Solvers refuse what is not finite, as gradients under a loss scale may be: such a step is
        # skipped by the scaler, which has to see it.
        sound = jacobian.isfinite().all()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flat = self.aggregator(torch.where(sound, jacobian, 0.0))
        flat = torch.where(sound, flat, torch.nan)
        pieces = torch.split(flat, [gradient.numel() for gradient in joint])
        return [piece.view_as(like) for piece, like in zip(pieces, joint, strict=True)]


def products(joint: Gradient, unimodal: Gradient) -> tuple[Tensor, Tensor, Tensor]:
    """Return <g, g>, <g, u> and <u, u> over all tensors, shape ``()`` each."""
    pairs = ((joint, joint), (joint, unimodal), (unimodal, unimodal))
    first, between, second = (
        torch.stack([torch.sum(a * b) for a, b in zip(*pair, strict=True)]).sum() for pair in pairs
    )
    return first, between, second


def mixed(joint: Gradient, unimodal: Gradient, weight: Tensor) -> list[Tensor]:
    """Return a * g + (1 - a) * u."""
    return [weight * a + (1 - weight) * b for a, b in zip(joint, unimodal, strict=True)]
