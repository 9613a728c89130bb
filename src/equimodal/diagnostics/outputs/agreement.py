"""Where the modalities agree, and where one sees what the others do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.interval import RESAMPLES, Interval, interval, mean_intervals
from equimodal.diagnostics.outputs.predictions import predictions
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError

SMALLEST = 10
MOST = 5


@dataclass(frozen=True)
class Lead:
    """A class in which one modality alone is ahead of every other alone.

    Attributes:
        label: the class.
        samples: how many it has.
        gap: accuracy of the modality minus that of the best other, paired.
    """

    label: str
    samples: int
    gap: Interval


@dataclass(frozen=True)
class Agreement:
    """Which modalities alone are right, over all samples and for every class.

    A pattern names the modalities that are right: ``"audio+visual"``, ``"audio"`` for audio only,
    ``""`` for none.

    Attributes:
        names: the modalities.
        patterns: share of the samples, by pattern; patterns that never occur are left out, but for
            all, none and one only.
        samples: of every class, by its name.
        per_class: shares within a class, by its name and pattern, of the same patterns.
        accuracies: of every modality within a class, by its name and the modality.
        leads: for every modality the classes where it leads, by the size of the gap.
        smallest: classes with fewer samples are left out of `leads`.
    """

    names: tuple[str, ...]
    patterns: dict[str, Interval]
    samples: dict[str, int]
    per_class: dict[str, dict[str, float]]
    accuracies: dict[str, dict[str, float]]
    leads: dict[str, tuple[Lead, ...]]
    smallest: int

    @property
    def both(self) -> Interval:
        """Share of the samples for which all modalities are right."""
        return self.patterns["+".join(self.names)]

    @property
    def only(self) -> dict[str, Interval]:
        """Share of the samples for which this modality alone is right."""
        return {name: self.patterns[name] for name in self.names}

    @property
    def neither(self) -> Interval:
        """Share of the samples for which no modality is right."""
        return self.patterns[""]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "both": self.both.value,
            "only": {name: of.value for name, of in self.only.items()},
            "neither": self.neither.value,
            "patterns": {pattern: asdict(of) for pattern, of in self.patterns.items()},
            "per_class": {
                label: {
                    "samples": self.samples[label],
                    "both": shares["+".join(self.names)],
                    "only": {name: shares[name] for name in self.names},
                    "neither": shares[""],
                    "patterns": shares,
                    "accuracy": self.accuracies[label],
                }
                for label, shares in self.per_class.items()
            },
            "leads": {
                name: [
                    {"class": lead.label, "samples": lead.samples, "gap": asdict(lead.gap)}
                    for lead in leads
                ]
                for name, leads in self.leads.items()
            },
            "smallest": self.smallest,
        }


def agreement(
    subject: Subject,
    loader: Iterable[Any],
    *,
    classes: Sequence[str] | None = None,
    smallest: int = SMALLEST,
    most: int = MOST,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Compare what the modalities alone get right, each read through the joint head.

    A modality that the head ignores is seldom right here, whatever its encoder knows; for that,
    give predictions of probes to `agreement_of`.

    Args:
        subject: a classifier.
        loader: batches as the subject takes them.
        classes: their names; numbers by default.
        smallest: say nothing of leads in classes with fewer samples.
        most: classes to name for every modality.
        resamples: of the bootstrap.

    Raises:
        MatchError: it is no classifier.
        SetupError: the loader gives nothing, or the number of names is not that of the classes.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel(2)
    >>> with Subject(model, dict(model.encoders.items()), model.head) as subject:
    ...     found = agreement(subject, [batch(24, dtype=torch.float32)], classes=("a", "b", "c"))
    >>> list(found.patterns)
    ['', 'audio', 'visual', 'audio+visual']
    """
    found = predictions(subject, loader)
    labels = {name: of.labels for name, of in found.alone.items()}
    names = tuple(map(str, range(found.classes))) if classes is None else classes
    return agreement_of(
        labels, found.target, classes=names, smallest=smallest, most=most, resamples=resamples
    )


def agreement_of(
    labels: Mapping[str, Tensor],
    target: Tensor,
    *,
    classes: Sequence[str],
    smallest: int = SMALLEST,
    most: int = MOST,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Compare what given predictions get right, such as those of probes.

    Args:
        labels: predicted classes of every modality, int64, shape ``(N,)``.
        target: true classes, like them.
        classes: their names.
        smallest: say nothing of leads in classes with fewer samples.
        most: classes to name for every modality. Of many classes some lead by chance: their
            intervals are those of classes that were not picked by their size.
        resamples: of the bootstrap.

    Raises:
        SetupError: shapes differ, or a class has no name.

    >>> target = torch.tensor([0, 0, 1, 1])
    >>> labels = {"audio": torch.tensor([0, 0, 0, 1]), "visual": torch.tensor([0, 1, 1, 1])}
    >>> found = agreement_of(labels, target, classes=("guitar", "snow"), smallest=2)
    >>> found.both.value, found.only["audio"].value, found.leads["visual"][0].label
    (0.5, 0.25, 'snow')
    """
    names = tuple(labels)
    _refuse_misfit(labels, target, classes)
    right = torch.stack([labels[name] == target for name in names])
    codes = (right * 2 ** torch.arange(len(names))[:, None]).sum(dim=0)
    always = {0, 2 ** len(names) - 1, *(2**m for m in range(len(names)))}
    shown = sorted(always | set(codes.tolist()))
    spelled = [_spell(code, names) for code in shown]
    table = torch.stack([codes == code for code in shown]).double()
    groups = {label: (target == number).nonzero().flatten() for number, label in enumerate(classes)}
    there = {label: rows for label, rows in groups.items() if len(rows)}
    return Agreement(
        names=names,
        patterns=dict(zip(spelled, mean_intervals(table, resamples), strict=True)),
        samples={label: len(rows) for label, rows in groups.items()},
        per_class={
            label: dict(zip(spelled, table[:, rows].mean(dim=1).tolist(), strict=True))
            for label, rows in there.items()
        },
        accuracies={
            label: dict(zip(names, right[:, rows].double().mean(dim=1).tolist(), strict=True))
            for label, rows in there.items()
        },
        leads={
            name: _leads(place, right, there, smallest, most, resamples)
            for place, name in enumerate(names)
        },
        smallest=smallest,
    )


def _leads(
    place: int,
    right: Tensor,
    groups: Mapping[str, Tensor],
    smallest: int,
    most: int,
    resamples: int,
) -> tuple[Lead, ...]:
    found = []
    for label, rows in groups.items():
        if len(rows) < smallest:
            continue
        of = right[:, rows].double()
        ahead = of[place] - torch.cat([of[:place], of[place + 1 :]])
        if ahead.numel() and ahead.mean(dim=1).min() > 0:
            found.append((label, ahead))
    found.sort(key=lambda each: -float(each[1].mean(dim=1).min()))
    return tuple(
        Lead(label, ahead.shape[1], _gap(ahead, resamples)) for label, ahead in found[:most]
    )


def _gap(ahead: Tensor, resamples: int) -> Interval:
    """Return the gap to the best other, which may be another one in another resample."""
    return interval(
        ahead.shape[1], lambda rows: ahead[:, rows].mean(dim=1).min(), resamples=resamples
    )


def _spell(code: int, names: Sequence[str]) -> str:
    return "+".join(name for place, name in enumerate(names) if code >> place & 1)


def _refuse_misfit(labels: Mapping[str, Tensor], target: Tensor, classes: Sequence[str]) -> None:
    for name, of in labels.items():
        if of.shape != target.shape or of.ndim != 1:
            raise SetupError(
                f"labels[{name!r}]: expected predicted classes of shape {tuple(target.shape)}, "
                f"found {tuple(of.shape)}"
            )
    if not len(target):
        raise SetupError("target: expected one sample or more, found none")
    if len(classes) <= int(target.max()) or len(set(classes)) < len(classes):
        raise SetupError(
            f"classes: expected a name for each class, {int(target.max()) + 1} or more, none "
            f"twice, found {len(classes)}: {', '.join(map(str, classes))}"
        )
