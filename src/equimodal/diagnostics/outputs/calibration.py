"""Whether the model is right as often as it is confident."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.interval import RESAMPLES, Interval, interval
from equimodal.diagnostics.outputs.predictions import Labels, Predictions, predictions
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The samples whose confidence lies above `low` and up to `high`.

    Attributes:
        low: below its confidences.
        high: its largest confidence.
        samples: how many there are.
        confidence: their mean confidence; None without samples.
        accuracy: how many of them are right; None without samples.
    """

    low: float
    high: float
    samples: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """Expected calibration error of one kind of predictions, and the table behind it.

    Attributes:
        ece: with its interval.
        confidence: mean over all samples.
        accuracy: over all samples.
        bins: of equal width, from 0 to 1.
    """

    ece: Interval
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "ece": self.ece.value,
            "interval": asdict(self.ece),
            "confidence": self.confidence,
            "accuracy": self.accuracy,
            "bins": [asdict(each) for each in self.bins],
        }


@dataclass(frozen=True)
class Calibration:
    """Calibration of the joint predictions, and of each modality alone.

    Attributes:
        joint: from all modalities.
        alone: from each, read through the joint head.
    """

    joint: Reliability
    alone: dict[str, Reliability]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: those of the joint predictions, and of ``modalities``."""
        alone = {name: of.to_dict() for name, of in self.alone.items()}
        return {**self.joint.to_dict(), "modalities": alone}


def calibration(
    subject: Subject, loader: Iterable[Any], *, bins: int = BINS, resamples: int = RESAMPLES
) -> Calibration:
    r"""Return the expected calibration error of the top label, with its reliability table.

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{N}
        \left| \mathrm{acc}(B_b) - \mathrm{conf}(B_b) \right|

    over bins of equal width, each open below and closed above.

    The head was trained on all modalities: a modality read alone through it, with the others
    replaced, is seldom calibrated, and that says little of its encoder.

    Args:
        subject: a classifier.
        loader: batches as the subject takes them.
        bins: how many.
        resamples: of the bootstrap. Noise never cancels in a sum of absolute values, so that
            resampling raises the error: of a calibrated model the interval may lie above its value.

    Raises:
        MatchError: it is no classifier.
        SetupError: the loader gives nothing.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel(2)
    >>> with Subject(model, dict(model.encoders.items()), model.head) as subject:
    ...     found = calibration(subject, [batch(24, dtype=torch.float32)])
    >>> sum(each.samples for each in found.joint.bins)
    24
    """
    return calibration_of(predictions(subject, loader), bins, resamples)


def calibration_of(found: Predictions, bins: int = BINS, resamples: int = RESAMPLES) -> Calibration:
    """Return the calibration of predictions, see `calibration`."""

    def table(of: Labels) -> Reliability:
        return reliability(of.confidences, of.labels == found.target, bins, resamples)

    return Calibration(table(found.joint), {name: table(of) for name, of in found.alone.items()})


def reliability(
    confidences: Tensor, right: Tensor, bins: int = BINS, resamples: int = RESAMPLES
) -> Reliability:
    """Return the calibration error of confidences, with its table.

    Args:
        confidences: from 0 to 1, shape ``(N,)``.
        right: whether each prediction is right, bool, shape ``(N,)``.
        bins: how many.
        resamples: of the bootstrap.

    Raises:
        SetupError: the shapes differ, there is no sample, a confidence is no probability, or there
            is no bin.

    >>> found = reliability(torch.tensor([0.9, 0.9, 0.6, 0.6]), torch.tensor([1, 0, 1, 0]).bool())
    >>> print(f"{found.ece.value:.2f}")
    0.25
    """
    if confidences.shape != right.shape or confidences.ndim != 1 or not len(right) or bins < 1:
        raise SetupError(
            "reliability: expected confidences and whether they are right of one shape (N,), and "
            f"a bin or more, found {tuple(confidences.shape)}, {tuple(right.shape)} and {bins} bins"
        )
    wide = confidences.double()
    if not ((wide >= 0) & (wide <= 1 + 1e-6)).all():
        raise SetupError(
            "confidences: expected numbers from 0 to 1, found "
            f"{wide.min():.3g} to {wide.max():.3g}: does the model give logits that are not finite?"
        )
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    # In the precision of the confidences: 0.2 in single precision is above 0.2 in double.
    inner = edges[1:-1].to(confidences.dtype)
    which = torch.bucketize(confidences, inner)
    gap = right.double() - wide

    def ece(rows: Tensor) -> Tensor:
        return which[rows].bincount(gap[rows], minlength=bins).abs().sum() / len(rows)

    counts = which.bincount(minlength=bins)
    sums = [which.bincount(of, minlength=bins).tolist() for of in (wide, right.double())]
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), *sums, strict=True)
    return Reliability(
        interval(len(right), ece, resamples),
        float(wide.mean()),
        float(right.double().mean()),
        tuple(
            Bin(low, high, n, sure / n if n else None, hits / n if n else None)
            for low, high, n, sure, hits in rows
        ),
    )
