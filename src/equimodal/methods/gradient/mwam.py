"""Gradients by the frequencies of the inputs: smooth inputs are learned fast, and held back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equimodal.attach.features import Inputs
from equimodal.errors import MatchError, SetupError
from equimodal.evidence import Evidence
from equimodal.functional.mwam import frequency_factors, frequency_ratios
from equimodal.functional.precision import at_least_single
from equimodal.method import Method
from equimodal.methods.objective.counted import counted
from equimodal.step import Shapes, Step


class MWAM(Method):
    r"""Weigh the gradients of encoders by the frequencies of their inputs (Lu et al., ICLR 2026).

    .. math::
        g_m \leftarrow \Big(1.5 - \sigma\big(10 (r_m / \bar b - 1)\big)\Big) g_m, \quad
        r_m = \mathrm{mean} \Big| \frac{F_{low}}{F_{high} + 10^{-6}} \Big|, \quad
        b_m \leftarrow \tfrac12 b_m + \tfrac12 r_m

    F is the cosine transform of patches of the input. An input with much in low frequencies is
    learned fast, and its encoder held back. The factors are between 0.5 and 1.5.

    For images, spectrograms, clips and series, as the first floating point tensor that an encoder
    is given; a vector is read as a series. The equations are those of the released code.

    Args:
        patch: edge of a patch, 2 or more.
        window: how many of the lowest and of the highest frequencies are compared, 1 or more.

    Raises:
        SetupError: an argument is out of its range.
        MatchError: an encoder is given no floating point tensor of two dimensions or more.
    """

    name = "mwam"
    source = "Lu et al., ICLR 2026"
    needs = frozenset({"encoder inputs"})

    def __init__(self, patch: int = 8, window: int = 2) -> None:
        super().__init__()
        for what, whole, least in (("patch", patch, 2), ("window", window, 1)):
            if not (type(whole) is int and whole >= least):
                raise SetupError(
                    f"MWAM({what}): expected a whole number of {least} or more, found {whole!r}"
                )
        self.patch = patch
        self.window_size = window
        self.register_buffer("bank", torch.empty(0))
        self._proposed: Tensor | None = None

    bank: Tensor

    def build(self, shapes: Shapes) -> None:
        self.bank = torch.zeros(len(self.names), dtype=shapes.dtype)

    def measure(self, step: Step) -> dict[str, Tensor]:
        rows = counted(step)
        sums = torch.zeros(len(self.names), dtype=step.shapes.dtype, device=step.logits.device)
        counts = torch.zeros_like(sums)
        with torch.no_grad():
            for at, name in enumerate(self.names):
                if name not in step.encoders:
                    continue  # its encoder did not run: nobody has it
                values = at_least_single(_input(name, step.encoders[name][0]).detach())
                ratios = frequency_ratios(values, self.patch, self.window_size)
                if len(ratios) != step.size:  # frames beside each other in one batch
                    ratios = ratios.view(step.size, -1).mean(dim=1)
                here = torch.ones_like(ratios, dtype=torch.bool) if rows is None else rows[at]
                sums[at] = torch.where(here, ratios, 0).sum()
                counts[at] = here.sum()
        return {"ratios": sums, "counts": counts}

    def coefficients(self, evidence: Evidence) -> Tensor:
        found = evidence.measured
        there = found["counts"] > 0
        ratios = torch.where(there, found["ratios"] / found["counts"], math.nan)
        past = self.bank.to(ratios)
        self._proposed = torch.where(there, (past + ratios) / 2, past)
        return frequency_factors(ratios, self._proposed)

    def commit(self) -> None:
        if self._proposed is not None:
            self.bank, self._proposed = self._proposed.to(self.bank), None


def _input(name: str, inputs: Inputs) -> Tensor:
    args, kwargs = inputs
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2:
            return value
    raise MatchError(
        f"MWAM: expected a floating point tensor of shape (B, ...) among what the encoder of "
        f"{name} is given, found none: it reads the frequencies of images, spectrograms and series"
    )
