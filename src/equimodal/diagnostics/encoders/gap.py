"""What joint training took from each encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.encoders.alone import Alone
from equimodal.diagnostics.encoders.probes import Probes
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_interval
from equimodal.errors import SetupError, unknown


@dataclass(frozen=True)
class Gap:
    """By how much each encoder trained alone is better than the jointly trained one.

    Attributes:
        difference: alone less jointly trained, paired over samples, by modality. Above 0: joint
            training left something of this modality unlearned.
    """

    difference: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Return the differences by modality as JSON values."""
        return {name: asdict(found) for name, found in self.difference.items()}


def gap(
    alone: Alone | Probes | Mapping[str, Tensor | float],
    probes: Probes,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Gap:
    """Compare encoders trained alone with linear probes on the jointly trained ones.

    Of all measures of imbalance this one tells most, and it shows damage to the leading modality
    too (as in Table 1 of MMPareto, Wei and Hu, ICML 2024).

    The classifier that an encoder is trained alone with is trained as long as the encoder, a probe
    to convergence: alone may be behind for that. The same reading on both sides compares the
    encoders themselves: ``gap(probes(reached.subject, train, test), probes(subject, train, test))``
    with ``reached = alone(subject, ...)``.

    Args:
        alone: from `alone`, or from `probes` on its subject; or what is known already, by modality:
            predicted classes of the samples that were probed, int64, shape ``(N,)``; whether they
            were right, bool, or another metric, floating, likewise; or an accuracy between 0 and 1,
            of which nobody knows how sure it is: its gap has no interval (NaN).
        probes: from `probes`, on the same samples in the same order.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        SetupError: the samples are not the same, or a modality is unknown.
    """
    known: Mapping[str, Tensor | float] = (
        alone.values if isinstance(alone, Alone | Probes) else alone
    )
    if isinstance(alone, Alone | Probes) and not torch.equal(alone.target.cpu(), probes.target):
        raise SetupError(
            "gap: the targets of the samples trained alone are not those of the probes, one by "
            "one: pass the same loader to both, and let it not shuffle"
        )
    difference = {}
    for name, given in known.items():
        if name not in probes.values:
            raise SetupError("gap: " + unknown("modality", name, probes.values))
        jointly = probes.values[name]
        reached = values_of(name, given, probes.target)
        differences = reached - jointly
        difference[name] = (
            mean_interval(differences, resamples, seed)
            if isinstance(given, Tensor)
            else Interval(float(differences.mean()), math.nan, math.nan)
        )
    return Gap(difference)


def values_of(name: str, given: Tensor | float, target: Tensor) -> Tensor:
    """Return what is known of an encoder as one value per sample, float64, shape ``(N,)``.

    Args:
        name: the modality.
        given: see `gap`; a mere accuracy is that of every sample.
        target: classes of the samples, shape ``(N,)``.

    Raises:
        SetupError: the samples are not as many, or it is no accuracy.
    """
    if not isinstance(given, Tensor):
        if isinstance(given, str) or not 0 <= given <= 1:
            raise SetupError(
                f"alone: expected an accuracy between 0 and 1 for {name}, found {given}"
            )
        return torch.full((len(target),), float(given), dtype=torch.float64)
    if given.shape != target.shape:
        raise SetupError(
            f"alone: expected one value for each of {len(target)} samples for {name}, found shape "
            f"{tuple(given.shape)}"
        )
    whole = not given.is_floating_point() and given.dtype != torch.bool
    return (given.cpu() == target if whole else given.cpu()).double()
