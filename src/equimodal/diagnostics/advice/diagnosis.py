"""All that was found of a model, as an object, as JSON, and as a page of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from equimodal.diagnostics.advice.verdicts import Advice
from equimodal.diagnostics.interval import Interval
from equimodal.errors import SetupError

FORMAT = 1
Intervals = Mapping[str, Interval]


@dataclass(frozen=True)
class Reading:
    """One modality read alone through the joint head, with the fill that reads most out of it.

    Attributes:
        fill: what stands for the others, see `equimodal.diagnostics.contributions.fills`.
        accuracy: then.
        beyond: accuracy minus that from no modality, with the same fill, paired.
        tells: whether any fill, or the subject's scores, read more than chance out of it.
    """

    fill: str
    accuracy: Interval
    beyond: Interval
    tells: bool


@dataclass(frozen=True)
class Together:
    """What a linear classifier of all features reaches, on encoders that start from its own.

    Attributes:
        alone: on encoders that were trained alone.
        joint: on the encoders of the model.
        promise: `alone` minus the better of the model and of `joint`, paired: what better encoders
            would bring.
        refit: `joint` minus the model, paired: what another head would bring.
        over_best: `alone` minus the best single modality trained alone, paired: what the others add
            to it.
    """

    alone: Interval
    joint: Interval
    promise: Interval
    refit: Interval
    over_best: Interval


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Numbers are shares from 0 to 1, intervals 95% over the evaluated samples.

    Attributes:
        model: what was examined.
        data: on which data set.
        split: on which part of it.
        samples: how many have a class.
        classes: their names.
        modalities: their names.
        chance: of guessing every class alike.
        accuracy: of the model.
        above_chance: `accuracy` minus the share of the most frequent class, paired.
        subsets: accuracy from some modalities, by fill and by names such as ``"audio+visual"``.
        shapley: what each modality adds, by fill.
        read: each modality alone through the joint head.
        leading: the modality with the highest Shapley value, on average over the fills.
        behind: Shapley value of the leading modality minus that of another, paired, with the fill
            that shows the least of it.
        trainable: how many numbers each encoder alone owns and may train.
        agreement: see `Agreement.to_dict`.
        utilisation: see `Utilisation.to_dict`.
        calibration: see `Calibration.to_dict`.
        discrepancy: see `Discrepancy.to_dict`.
        cost: see `Cost.to_dict`.
        robustness: see `Robustness.to_dict`.
        probes: accuracy of a linear probe on each encoder.
        alone: accuracy of each encoder trained alone.
        alone_tells: whether it is then better than chance.
        gap: `alone` minus `probes`, paired.
        shortfall: the better of `alone` and `probes`, as far as they are known, minus `read`,
            paired.
        together: what all features reach under another head.
        gradients: see `Gradients.to_dict`.
        curves: see `Curves.to_dict`.
        notes: what to know when reading it.
        advice: whether to balance.
    """

    model: str
    data: str
    split: str
    samples: int
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    chance: float
    accuracy: Interval
    above_chance: Interval
    subsets: Mapping[str, Intervals]
    shapley: Mapping[str, Intervals]
    read: Mapping[str, Reading]
    leading: str
    behind: Intervals
    trainable: Mapping[str, int]
    agreement: Mapping[str, Any]
    utilisation: Mapping[str, Any]
    calibration: Mapping[str, Any]
    discrepancy: Mapping[str, Any]
    cost: Mapping[str, Any]
    robustness: Mapping[str, Any] = field(default_factory=dict)
    probes: Intervals | None = None
    alone: Intervals | None = None
    alone_tells: Mapping[str, bool] | None = None
    gap: Intervals | None = None
    shortfall: Intervals | None = None
    together: Together | None = None
    gradients: Mapping[str, Any] | None = None
    curves: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    advice: Advice | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; an interval is ``{"value": ..., "low": ..., "high": ...}``."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            "format": FORMAT,
            **{name: _plain(value) for name, value in found.items()},
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Diagnosis:
        """Return the diagnosis that `to_dict` wrote.

        Raises:
            SetupError: it is of another format, or something is missing.
        """
        if found.get("format") != FORMAT:
            raise SetupError(
                f"diagnosis: expected format {FORMAT}, found {found.get('format')!r}: diagnose anew"
            )
        missing = [each.name for each in fields(cls) if each.name not in found]
        if missing:
            raise SetupError(f"diagnosis: {', '.join(missing)} missing: diagnose anew")
        values = {each.name: found[each.name] for each in fields(cls)}
        for name in ("subsets", "shapley"):
            values[name] = {fill: _intervals(of) for fill, of in values[name].items()}
        for name in ("behind", "probes", "alone", "gap", "shortfall"):
            values[name] = None if values[name] is None else _intervals(values[name])
        for name in ("accuracy", "above_chance"):
            values[name] = Interval(**values[name])
        for name in ("classes", "modalities", "notes"):
            values[name] = tuple(values[name])
        values["read"] = {
            name: Reading(
                each["fill"],
                Interval(**each["accuracy"]),
                Interval(**each["beyond"]),
                each["tells"],
            )
            for name, each in values["read"].items()
        }
        if values["together"] is not None:
            values["together"] = Together(**_intervals(values["together"]))
        if values["advice"] is not None:
            values["advice"] = Advice.from_dict(values["advice"])
        return cls(**values)

    def __str__(self) -> str:
        from equimodal.diagnostics.advice.page import page  # which takes a diagnosis

        return page(self)


def _plain(value: Any) -> Any:
    if isinstance(value, Advice):
        return value.to_dict()
    if isinstance(value, Interval):
        return value.to_dict()
    if isinstance(value, Reading | Together):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no other word for it
    return value


def _intervals(found: Mapping[str, Mapping[str, float]]) -> dict[str, Interval]:
    return {name: Interval.from_dict(each) for name, each in found.items()}
