"""On-the-fly gradient modulation, with and without generalisation enhancement."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equimodal import functional
from equimodal.errors import SetupError, unknown
from equimodal.evidence import Evidence
from equimodal.method import Capabilities, Method, Space
from equimodal.methods.gradient.coefficients import Coefficient, Thresholded
from equimodal.methods.window import checked_window
from equimodal.modalities import Selection, Selector, selector
from equimodal.noise import Noise, TensorNoise
from equimodal.search import Log, searched
from equimodal.step import Shapes


class OGM(Method):
    r"""Throttle the gradient of the modality that is ahead (Peng et al., CVPR 2022).

    .. math::
        g_m \leftarrow k_m g_m, \quad
        k_m = 1 - \tanh(\alpha \rho_m) \text{ if } \rho_m > 1 \text{, else } 1, \quad
        \rho_m = \frac{s_m}{\frac{1}{M-1} \sum_{j \ne m} s_j}

    The score :math:`s_m` says how well modality m does alone; see `equimodal.scores`.

    Args:
        alpha: how strongly the leader is throttled, at least 0. The paper chose it per data set
            (0.8 on CREMA-D, 0.1 on VGGSound); choose it on validation data.
        coefficient: how a ratio becomes a coefficient: `Thresholded()` (the paper),
            `Continuous()` (TPAMI 2024) or `TwoSided(beta)` (BMVC 2024).
        floor: the smallest coefficient, between 0 and 1.
        smoothing: weight of the past in a running mean of the evidence, at least 0 and below 1;
            0 takes each step as it is, as the paper does.
        noise: noise added after the coefficients, or None.
        parameters: which parameters of an encoder: "weights" with two or more dimensions,
            "convolutions" only (the published code), "all", or a function.
        space: "gradient" (the paper), or "update" to scale what the optimizer makes of the
            gradient. Adam and its kin cancel a constant factor on gradients almost entirely.
        window: first and last epoch in which it acts, counted from 0, both included; always by
            default. The published code stops after epoch 50 of 100.
        modalities: the modalities to throttle, all by default. Evidence is taken of all anyway.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "ogm"
    search = searched(alpha=Log(0.05, 1.0))
    source = "Peng et al., CVPR 2022"
    needs = frozenset({"scores"})
    capabilities = Capabilities(sharded=True)

    def __init__(
        self,
        alpha: float = 0.3,
        *,
        coefficient: Coefficient | None = None,
        floor: float = 0.0,
        smoothing: float = 0.0,
        noise: Noise | None = None,
        parameters: Selection | Selector = "weights",
        space: Space = "gradient",
        window: tuple[int, int] | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        for what, value, low, high in (
            ("alpha", alpha, 0, math.inf),
            ("floor", floor, 0, 1),
            ("smoothing", smoothing, 0, math.nextafter(1, 0)),
        ):
            if not (low <= value <= high and math.isfinite(value)):
                bound = f"between {low} and {high:g}" if what != "alpha" else "of 0 or more"
                raise SetupError(
                    f"{type(self).__name__}({what}): expected a number {bound}, found {value}"
                )
        self.alpha = alpha
        self.coefficient = coefficient or Thresholded()
        self.floor = floor
        self.smoothing = smoothing
        self.noise = noise
        _set_scope(self, parameters, space, window, modalities)
        self.register_buffer("smoothed", torch.empty(0))
        self._proposed: Tensor | None = None

    smoothed: Tensor

    def build(self, shapes: Shapes) -> None:
        self.smoothed = torch.full((len(self.names),), math.nan, dtype=shapes.dtype)

    def coefficients(self, evidence: Evidence) -> Tensor:
        ratios = evidence.ratios if self.smoothing == 0 else self._smooth_ratios(evidence)
        coefficients = self.coefficient(ratios, self.alpha)
        # Also at 0: `TwoSided` with a large beta falls below, which would climb the loss.
        bounded = self.floor > 0 or self.coefficient.negative
        return coefficients.clamp(min=self.floor) if bounded else coefficients

    def commit(self) -> None:
        if self._proposed is not None:
            self.smoothed, self._proposed = self._proposed, None

    def _smooth_ratios(self, evidence: Evidence) -> Tensor:
        """Return ratios of running mean scores, still as logarithms: exp(-loss) may underflow."""
        means = evidence.log_means
        past = self.smoothed.to(means)
        mixed = torch.logaddexp(
            past + math.log(self.smoothing), means + math.log1p(-self.smoothing)
        )
        mixed = torch.where(past.isnan(), means, mixed)
        sound = means.isfinite()
        self._proposed = torch.where(sound, mixed, past)
        present = (evidence.counts > 0).to(means.dtype)
        ratios = functional.discrepancy_ratio(self._proposed, present)
        return torch.where(sound.logical_or(present == 0).all(), ratios, math.nan)


class OGMGE(OGM):
    r"""OGM with generalisation enhancement (Peng et al., CVPR 2022).

    .. math:: g_m \leftarrow k_m g_m + \epsilon, \quad \epsilon \sim \mathcal N(0, \sigma^2)

    Throttling weakens the noise of stochastic gradients, which helps generalisation; the added
    noise gives it back. By default it is that of the published code: one standard deviation per
    parameter tensor, of its unmodulated gradient, for every modality, also where k is 1.

    Args:
        alpha: see `OGM`.
        noise: `TensorNoise()` (the published code) or `ElementNoise()` (per element, the covariance
            that the theory speaks of).
        coefficient: see `OGM`, as all that follow.
        floor: see `OGM`.
        smoothing: see `OGM`.
        parameters: see `OGM`.
        space: see `OGM`; the noise then has the standard deviation of the update.
        window: see `OGM`.
        modalities: see `OGM`.
    """

    name = "ogm-ge"
    capabilities = Capabilities(sharded=True, order="drawn")
    search = searched(alpha=Log(0.05, 1.0))

    def __init__(
        self,
        alpha: float = 0.3,
        *,
        noise: Noise | None = None,
        coefficient: Coefficient | None = None,
        floor: float = 0.0,
        smoothing: float = 0.0,
        parameters: Selection | Selector = "weights",
        space: Space = "gradient",
        window: tuple[int, int] | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            alpha,
            coefficient=coefficient,
            floor=floor,
            smoothing=smoothing,
            noise=noise or TensorNoise(),
            parameters=parameters,
            space=space,
            window=window,
            modalities=modalities,
        )


class GE(Method):
    """Generalisation enhancement alone: the noise of OGM-GE without its coefficients.

    Most of the published gain of OGM-GE on CREMA-D comes with the noise alone, so it belongs into
    every comparison.

    Args:
        noise: see `OGMGE`.
        parameters: see `OGM`.
        space: see `OGM`.
        window: see `OGM`.
        modalities: the modalities that get noise, all by default.
    """

    name = "ge"
    source = "Peng et al., CVPR 2022"
    capabilities = Capabilities(sharded=True, order="drawn")

    def __init__(
        self,
        *,
        noise: Noise | None = None,
        parameters: Selection | Selector = "weights",
        space: Space = "gradient",
        window: tuple[int, int] | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.noise = noise or TensorNoise()
        _set_scope(self, parameters, space, window, modalities)


def _set_scope(
    method: Method,
    parameters: Selection | Selector,
    space: Space,
    window: tuple[int, int] | None,
    modalities: Sequence[str] | None,
) -> None:
    """Check and set where a method acts: on which parameters, in which space, when, on whom."""
    selector(parameters)  # refuses an unknown name
    if space not in ("gradient", "update"):
        raise SetupError(unknown("space", str(space), ("gradient", "update")))
    method.selection = parameters
    method.space = space
    method.window = checked_window(window, type(method).__name__)
    method.modalities = None if modalities is None else tuple(modalities)
