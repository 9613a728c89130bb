"""How far apart the modalities are, each read alone through the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal import functional
from equimodal.diagnostics.interval import RESAMPLES, Interval, few_interval, interval
from equimodal.diagnostics.outputs.predictions import means_of, read_alone
from equimodal.diagnostics.randomness import observing
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Discrepancy:
    """What the model tells the true class by, modality by modality.

    Attributes:
        ratio: OGM's discrepancy ratio on all samples, by modality, its interval over samples.
        batch_ratio: mean of the ratios of single batches, its t interval over batches.
        log_probability: quantiles (`QUANTILES`) over samples of the logarithm of the probability
            that the modality alone gives to the true class, by modality.
        gap: likewise of the gap, the modality's less the mean of the others'.
        values: the logarithms, shape ``(M, N)``.
    """

    ratio: dict[str, Interval]
    batch_ratio: dict[str, Interval]
    log_probability: dict[str, list[float]]
    gap: dict[str, list[float]]
    values: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Return all but the values of single samples as JSON values."""
        return {
            "ratio": {name: asdict(found) for name, found in self.ratio.items()},
            "batch_ratio": {name: asdict(found) for name, found in self.batch_ratio.items()},
            "quantiles": list(QUANTILES),
            "log_probability": self.log_probability,
            "gap": self.gap,
        }


def discrepancy(
    subject: Subject, loader: Iterable[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> Discrepancy:
    r"""Compare how much probability each modality alone gives to the true class.

    The score of a modality is :math:`s_m = \sum_i \exp(-\ell_i(u_m, y_i) / \tau)`, by the user's
    loss and the unimodal logits that the subject's scores read, with means over the data and not
    over a batch where they replace by means; the ratio is that of OGM (Peng et
    al., CVPR 2022), for M > 2 with the mean of the other scores below. A batch's ratio is what a
    method sees in training; it is noisy, and the mean of ratios is above the ratio of sums. For
    cross-entropy and :math:`\tau = 1`, :math:`-\ell` is the logarithm of the true class's
    probability; for another loss it is what stands for it.

    Args:
        subject: the model.
        loader: batches as the subject takes them.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        SetupError: the loader gives no sample that counts.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = discrepancy(subject, [batch(24), batch(24, seed=2)])
    >>> round(found.ratio["audio"].value * found.ratio["visual"].value, 9)
    1.0
    """
    parts = []
    means = means_of(subject, loader)
    with observing(subject, loader) as steps:
        for step in steps:
            alone = read_alone(step, means)
            unimodal = [alone[name] for name in step.names]
            losses = step.criterion.each_per_sample(unimodal, step.target)
            ignored = step.criterion.ignored(step.target)
            losses = losses if ignored is None else losses[:, ~ignored]
            if losses.shape[1]:
                parts.append(losses.cpu().double() / -step.temperature)
    if not parts:
        raise SetupError("the loader gave no sample that has something to predict")
    values = torch.cat(parts, dim=1)
    by_batch = torch.stack([_ratios(part) for part in parts], dim=1)
    others = (values.sum(dim=0) - values) / (len(values) - 1)
    names = subject.names
    return Discrepancy(
        {
            name: interval(values.shape[1], _Ratio(values, row), resamples, seed)
            for row, name in enumerate(names)
        },
        {name: few_interval(of) for name, of in zip(names, by_batch, strict=True)},
        _quantiles(names, values),
        _quantiles(names, values - others),
        values,
    )


class _Ratio:
    """The ratio of one modality on some of the samples."""

    def __init__(self, values: Tensor, row: int) -> None:
        self.values, self.row = values, row

    def __call__(self, rows: Tensor) -> Tensor:
        return _ratios(self.values[:, rows])[self.row]


def _ratios(values: Tensor) -> Tensor:
    return functional.discrepancy_ratio(values.logsumexp(dim=1))


def _quantiles(names: tuple[str, ...], values: Tensor) -> dict[str, list[float]]:
    wanted = torch.tensor(QUANTILES, dtype=values.dtype)
    # "nearest": between two infinite values there is nothing.
    found = values.quantile(wanted, dim=1, interpolation="nearest").T.tolist()
    return dict(zip(names, found, strict=True))
