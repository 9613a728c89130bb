"""How much of the joint accuracy needs a modality, given the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.contributions.fills import FILLS
from equimodal.diagnostics.contributions.reading import Metric, correct
from equimodal.diagnostics.contributions.subsets import Subsets, subsets
from equimodal.diagnostics.interval import RESAMPLES, Interval, interval
from equimodal.diagnostics.subject import Subject


@dataclass(frozen=True)
class Utilisation:
    """Conditional utilisation rates.

    Attributes:
        rates: by fill and by modality.
    """

    rates: dict[str, dict[str, Interval]]

    def to_dict(self) -> dict[str, Any]:
        """Return the rates by fill and by modality as JSON values."""
        return {
            fill: {name: asdict(rate) for name, rate in rates.items()}
            for fill, rates in self.rates.items()
        }


def utilisation(
    subject: Subject,
    loader: Iterable[Any],
    *,
    known: Subsets | None = None,
    fills: Sequence[str] = FILLS,
    metric: Metric = correct,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Utilisation:
    r"""Return the conditional utilisation rate of each modality (Wu et al., ICML 2022).

    .. math:: u(m \mid \text{rest}) = \frac{A(\text{all}) - A(\text{all but } m)}{A(\text{all})}

    With two modalities it is the paper's :math:`u(m_1 \mid m_2)`; with more, the rest is all the
    others. It is at most 1, below 0 where the modality does harm, and undefined (NaN) where the
    accuracy is 0. The paper replaces what a modality hands to the others within the network; here
    its feature is replaced in front of the head, so that any model has a rate, and numbers do not
    compare with the paper's. Of two redundant modalities both rates are near 0, though either is
    used: read them beside the accuracy of each modality alone.

    Args:
        subject: the model.
        loader: batches as the subject takes them.
        known: from `subsets` on the same data, so that they need not be read again.
        fills: what stands for the modality, see `subsets`.
        metric: of (logits, target), one value per sample, 0 or more.
        resamples: of the bootstrap.
        seed: of the bootstrap and of the fill "shuffled".

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = utilisation(subject, [batch(24)], fills=["zero"])
    >>> found.rates["zero"]["audio"].value <= 1
    True
    """
    if known is None:
        known = subsets(subject, loader, fills=fills, metric=metric, resamples=2, seed=seed)
    whole = known.members.index(known.names)
    found: dict[str, dict[str, Interval]] = {}
    for fill, values in known.values.items():
        found[fill] = {}
        for name in known.names:
            rest = known.members.index(tuple(other for other in known.names if other != name))
            pair = values[[whole, rest]].double()
            found[fill][name] = interval(pair.shape[1], _Rate(pair), resamples, seed)
    return Utilisation(found)


class _Rate:
    """The rate on some of the samples, from the metric with and without a modality."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, rows: Tensor) -> Tensor:
        together, without = self.values[:, rows].mean(dim=1)
        return torch.where(together != 0, (together - without) / together, torch.nan)
