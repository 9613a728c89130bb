"""Unimodal losses, and encoders that learn the faster the surer and quieter their modality is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.arl import asymmetric_weights
from equimodal.method import Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.search import Log, searched
from equimodal.step import Step


class EncoderWeights:
    """Maps what was measured of the unimodal logits to a weight for each modality."""

    def __call__(self, magnitude: Tensor, entropy: Tensor, present: Tensor) -> Tensor:
        """Return weights w of shape ``(M,)`` that sum to 1; see `asymmetric_weights`."""
        raise NotImplementedError


@dataclass(frozen=True)
class AsymmetricWeights(EncoderWeights):
    """Large for a modality that is certain and has little say in the logits: the method's own.

    Args:
        temperature: T, 0 or more: 8 for CREMA-D and 4 for Kinetics-Sounds in the released scripts.
    """

    temperature: float = 8.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise SetupError(
                "AsymmetricWeights(temperature): expected a number of 0 or more, found "
                f"{self.temperature}"
            )

    def __call__(self, magnitude: Tensor, entropy: Tensor, present: Tensor) -> Tensor:
        return asymmetric_weights(magnitude, entropy, self.temperature, present)


@dataclass(frozen=True)
class UniformWeights(EncoderWeights):
    """The same for all: what is left of the method in a release that never assigns its weights."""

    def __call__(self, magnitude: Tensor, entropy: Tensor, present: Tensor) -> Tensor:
        shares = present.to(magnitude.dtype)
        return shares / shares.sum().clamp(min=1)


def last_without(epochs: int) -> int:
    """Return the last epoch without weights: of 100, the released code leaves 0 to 5 without.

    >>> last_without(100), last_without(20), last_without(4)
    (5, 0, -1)
    """
    return round(epochs * 6 / 100) - 1


class ARL(Method):
    r"""Unimodal losses and asymmetric gradients of the encoders (Wei, Luo, Luo, ICCV 2025).

    .. math:: L = L(f, y) + \gamma \sum_m L(u_m, y), \quad g_m \leftarrow (1 + w_m) g_m

    up to epoch `start` with :math:`\gamma = 1` and w = 0. The released code scales the gradient
    that arrives at an encoder's output; a gradient is linear in it, so that of every parameter of
    the encoder is scaled alike. Here w is judged by the very step that it acts on, over all its
    micro-batches and ranks.

    For classification. Equations from the released code: not verified against the paper.

    Args:
        gamma: weight of the unimodal losses after epoch `start`, 0 or more: 4 for CREMA-D and 3 for
            Kinetics-Sounds in the released scripts.
        start: last epoch without weights, counted from 0, -1 for none; by default that of the
            released code, which leaves 6 in 100 epochs of training without.
        weights: `AsymmetricWeights()` (None stands for it), or `UniformWeights()`.
        modalities: those whose gradients are scaled, all by default. Weights are judged of all.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "arl"
    search = searched(gamma=Log(1.0, 8.0))
    source = "Wei, Luo and Luo, ICCV 2025"
    needs = frozenset({"scores"})
    capabilities = Capabilities()
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"start": last_without}

    def __init__(
        self,
        gamma: float = 4.0,
        start: int | None = None,
        weights: EncoderWeights | None = None,
        *,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= gamma < math.inf:
            raise SetupError(f"ARL(gamma): expected a number of 0 or more, found {gamma}")
        if start is not None and start < -1:
            raise SetupError(f"ARL(start): expected an epoch, or -1 for none, found {start}")
        if weights is not None and not isinstance(weights, EncoderWeights):
            raise SetupError(
                "ARL(weights): expected eq.AsymmetricWeights(...) or eq.UniformWeights(), "
                f"found {weights!r}"
            )
        self.gamma = gamma
        self.start = start
        self.weights = weights or AsymmetricWeights()
        self.modalities = None if modalities is None else tuple(modalities)

    def objective(self, step: Step) -> dict[str, Tensor]:
        assert self.start is not None
        gamma = self.gamma if step.epoch > self.start else 1.0
        return {name: gamma * step.loss(step.unimodal[name], modality=name) for name in self.names}

    def measure(self, step: Step) -> dict[str, Tensor]:
        assert self.start is not None
        if step.epoch <= self.start:
            return {}
        _, has_label = class_labels(step, "ARL")
        logits = torch.stack([step.unimodal[name].detach() for name in self.names])
        logits = logits.to(step.shapes.dtype)  # half precision cannot count
        logs = logits.log_softmax(dim=2)
        rows = counted(step, has_label)
        rows = torch.ones_like(logits[..., 0]) if rows is None else rows.to(logits.dtype)
        return {
            "magnitude": (logits.abs().sum(dim=2) * rows).sum(dim=1),
            "entropy": -((logs.exp() * logs).sum(dim=2) * rows).sum(dim=1),
            "samples": rows.sum(dim=1),
        }

    def coefficients(self, evidence: Evidence) -> Tensor | None:
        if "samples" not in evidence.measured:
            return None
        samples = evidence.measured["samples"]
        magnitude, entropy = (
            evidence.measured[what] / samples.clamp(min=1) for what in ("magnitude", "entropy")
        )
        return 1 + self.weights(magnitude, entropy, samples > 0)
